/* attnplug why: each op in the order in which auto asks, and what it says of a call. */
#include "cli.h"
#include "commands.h"

#include "attn_router.h"
#include "error.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *device, *dtype, *shape;
    bool lse, key_mass, probs, bias, mask, causal, approximate, json;
} arguments;

/* The call of that shape with what was asked for. */
static bool make_call(const arguments *a, attn_device *device, attn_op_call *call)
{
    int64_t s[5];
    uint8_t code, bits;
    if (!cli_device(a->device, device) || !cli_dtype(a->dtype, &code, &bits) ||
        !cli_shape(a->shape, s, 5)) {
        return false;
    }
    const int64_t q[4] = {s[0], s[1], s[2], s[4]}, k[4] = {s[0], s[1], s[3], s[4]};
    const int64_t map[4] = {s[0], s[1], s[2], s[3]}, mass[2] = {s[0], s[3]};
    *call = (attn_op_call){.size = sizeof *call};
    call->q = call->out = cli_tensor(device, code, bits, 4, q);
    call->k = call->v = cli_tensor(device, code, bits, 4, k);
    if (a->bias) {
        call->bias = cli_tensor(device, code, bits, 4, map);
    }
    if (a->mask) {
        call->mask = cli_tensor(device, ATTN_CODE_UINT, 8, 4, map);
    }
    if (a->lse) {
        call->lse = cli_tensor(device, ATTN_CODE_FLOAT, 32, 3, q);
    }
    if (a->key_mass) {
        call->key_mass = cli_tensor(device, ATTN_CODE_FLOAT, 32, 2, mass);
    }
    if (a->probs) {
        call->probs = cli_tensor(device, ATTN_CODE_FLOAT, 32, 4, map);
    }
    if (a->causal) {
        call->flags |= ATTN_CALL_BAND;
        call->band_lo = INT64_MIN;
    }
    return true;
}

static void print_rows(const attn_why *rows, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        char time[32] = "";
        if (rows[i].measured_us > 0) {
            (void)snprintf(time, sizeof time, ", %.1f us", rows[i].measured_us);
        }
        (void)printf("%-6s %-32s (%s%s)%s%s\n",
                     rows[i].taken       ? "taken"
                     : rows[i].reason[0] ? "no"
                                         : "could",
                     rows[i].op, rows[i].source, time, rows[i].reason[0] ? " " : "",
                     rows[i].reason);
    }
}

static void print_json(const attn_why *rows, uint32_t n)
{
    (void)putchar('[');
    for (uint32_t i = 0; i < n; i++) {
        (void)printf("%s\n  {\"op\": ", i ? "," : "");
        cli_json_text(stdout, rows[i].op);
        (void)printf(", \"taken\": %s, \"reason\": ", rows[i].taken ? "true" : "false");
        cli_json_text(stdout, rows[i].reason);
        (void)fputs(", \"source\": ", stdout);
        cli_json_text(stdout, rows[i].source);
        (void)printf(", \"measured_us\": %.3f}", rows[i].measured_us);
    }
    (void)fputs("\n]\n", stdout);
}

static int print_why(attn_registry *registry, const arguments *a, const attn_device *device,
                     const attn_op_call *call)
{
    const uint32_t most = attn_registry_count(registry) + 1; /* a row a file, and the name wanted */
    attn_why *rows = calloc(most, sizeof *rows);
    ATTN_ERROR_ON(err, 1024);
    attn_router *router = NULL;
    uint32_t n = 0;
    bool taken = false;
    if (!rows) {
        return cli_fail("no memory for %u rows", most);
    }
    rows[0].size = sizeof *rows;
    attn_status status = attn_router_open(registry, device, NULL, &router, &err);
    if (status == ATTN_OK) {
        status = attn_router_why(router, call, a->approximate ? ATTN_ROUTE_APPROXIMATE : 0, rows,
                                 most, &n, &err);
    }
    if (status == ATTN_OK) {
        if (a->json) {
            print_json(rows, n);
        } else {
            print_rows(rows, n);
        }
        for (uint32_t i = 0; i < n; i++) {
            taken = taken || rows[i].taken;
        }
    }
    (void)attn_router_close(router);
    free(rows);
    return status != ATTN_OK ? cli_fail("%s", err.text)
           : taken           ? CLI_OK
                             : cli_fail("no op takes this call");
}

int cmd_why(int argc, char **argv)
{
    arguments a = {.device = "cpu", .dtype = "f32"};
    int first = 0;
    const cli_option options[] = {
        {"shape", CLI_TEXT, &a.shape, "B,H,Nq,Nk,D", "batch, heads, queries, keys, head dimension"},
        {"device", CLI_TEXT, &a.device, "D", "cpu, cuda, cuda:1, cann (default cpu)"},
        {"dtype", CLI_TEXT, &a.dtype, "T", "f32, f16, bf16, f64 (default f32)"},
        {"lse", CLI_FLAG, &a.lse, NULL, "the call wants log-sum-exp"},
        {"key-mass", CLI_FLAG, &a.key_mass, NULL, "the call wants key_mass, as SAG's layer does"},
        {"probs", CLI_FLAG, &a.probs, NULL, "the call wants the probabilities"},
        {"bias", CLI_FLAG, &a.bias, NULL, "the call has a bias"},
        {"mask", CLI_FLAG, &a.mask, NULL, "the call has a mask"},
        {"causal", CLI_FLAG, &a.causal, NULL, "a query sees no later key"},
        {"approximate", CLI_FLAG, &a.approximate, NULL, "approximate ops may be taken"},
        {"json", CLI_FLAG, &a.json, NULL, "for programs to read"},
    };
    const cli_command command = {
        "attnplug why --shape B,H,Nq,Nk,D [OPTIONS]",
        "Which op auto takes for a call: each op in the order in which it is asked, the rule that\n"
        "put it there, and the reason that it was not taken.",
        options,
        sizeof options / sizeof *options,
        0,
        0};
    attn_device device;
    attn_op_call call;
    attn_registry *registry = NULL;
    int status = cli_parse(&command, argc, argv, &first);
    if (status != CLI_GO) {
        return status;
    }
    if (!a.shape) {
        return cli_misuse("--shape is missing; usage: %s", command.usage);
    }
    if (!make_call(&a, &device, &call)) {
        return CLI_USAGE;
    }
    status = cli_registry(&registry);
    if (status) {
        return status;
    }
    status = print_why(registry, &a, &device, &call);
    attn_registry_close(registry);
    return status;
}
