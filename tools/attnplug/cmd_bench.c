/* attnplug bench: how fast is each op, verified first. */
#include "bench/bench.h"
#include "cli.h"
#include "commands.h"

#include "error.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    cli_texts ops, shapes;
    const char *device, *dtype;
    bool key_mass, json, tune;
    int64_t rounds, seconds;
} arguments;

enum { MAX_ROWS = BENCH_MAX_SHAPES * BENCH_MAX_OPS };

/* Ids of the named ops, or of every op of the device but the one that results are compared with. */
static int choose_ops(const arguments *a, struct bench *b, char ids[BENCH_MAX_OPS][64])
{
    ATTN_ERROR_ON(err, 256);
    attn_file_info file = {.size = sizeof file};
    if (a->ops.n > BENCH_MAX_OPS) {
        return cli_misuse("--op: given %u times, expected at most %d", a->ops.n, BENCH_MAX_OPS);
    }
    for (uint32_t i = 0; i < a->ops.n; i++) {
        if (attn_op_id_in(b->registry, a->ops.items[i], b->place->device.runtime, ids[b->n_ops],
                          &err) != ATTN_OK) {
            return cli_misuse("%s", err.text);
        }
        b->n_ops++;
    }
    for (uint32_t i = 0; !a->ops.n && i < attn_registry_count(b->registry); i++) {
        if (attn_registry_file(b->registry, i, &file) != ATTN_OK ||
            file.verdict != ATTN_VERDICT_OK || !file.op ||
            !(file.op->devices >> b->place->device.type & 1) ||
            strcmp(file.op->id, b->place->reference) == 0 || b->n_ops == BENCH_MAX_OPS) {
            continue;
        }
        (void)snprintf(ids[b->n_ops++], 64, "%s", file.op->id);
    }
    for (int i = 0; i < b->n_ops; i++) {
        b->ops[i] = ids[i];
    }
    return b->n_ops ? CLI_OK : cli_fail("no op for device \"%s\"", b->place->device.runtime);
}

static int measure_all(const arguments *a, const struct bench *b, const struct bench_shape *shapes,
                       int n_shapes, const char *command)
{
    ATTN_ERROR_ON(err, 1024);
    struct bench_row *rows = calloc(MAX_ROWS, sizeof *rows);
    int n = 0;
    attn_status status = rows ? ATTN_OK : attn_fail(&err, ATTN_NOMEM, "no memory for rows");
    if (!a->json) {
        bench_table_head(b);
    }
    for (int i = 0; i < n_shapes && status == ATTN_OK; i++) {
        int more = 0;
        status = bench_measure(b, &shapes[i], rows + n, &more, &err);
        for (int k = 0; k < more && status == ATTN_OK && !a->json; k++) {
            bench_table_row(b, &rows[n + k]);
        }
        n += more;
    }
    int timed = 0;
    for (int i = 0; i < n && status == ATTN_OK; i++) {
        timed += rows[i].median_ms > 0;
    }
    if (status == ATTN_OK && timed && a->tune) {
        status = bench_tune(b, a->dtype, rows, n, &err);
    }
    if (status == ATTN_OK && a->json) {
        bench_json(b, rows, n, command);
    }
    if (status == ATTN_OK && !timed) {
        status = attn_fail(&err, ATTN_UNSUPPORTED, "no op took any of the shapes");
    }
    free(rows);
    return status == ATTN_OK ? CLI_OK : cli_fail("%s", err.text);
}

/* The registry, and ops that were named by their files. */
static int plugins_find(arguments *a, struct bench *b)
{
    int status = 0;
    for (uint32_t i = 0; i < a->ops.n && !status; i++) {
        status = cli_op_file(a->ops.items[i]);
    }
    status = status ? status : cli_registry(&b->registry);
    for (uint32_t i = 0; i < a->ops.n && !status; i++) {
        status = cli_op_of_file(b->registry, &a->ops.items[i]);
    }
    return status;
}

static int run(arguments *a, struct bench *b, const attn_device *device,
               const struct bench_shape *shapes, int n_shapes, const char *command)
{
    ATTN_ERROR_ON(err, 1024);
    char ids[BENCH_MAX_OPS][64];
    struct bench_place place;
    attn_router *router = NULL;
    int status = plugins_find(a, b);
    if (status) {
        attn_registry_close(b->registry);
        return status;
    }
    if (bench_place_open(device, &place, &err) != ATTN_OK) {
        status = cli_fail("%s", err.text);
    } else if (attn_router_open(b->registry, device, NULL, &router, &err) != ATTN_OK) {
        b->place = &place;
        status = cli_fail("%s", err.text);
    } else {
        b->place = &place;
        b->host = attn_router_host(router);
        status = choose_ops(a, b, ids);
        if (status == CLI_OK && place.ready) {
            place.ready(&place, b->host);
        }
        if (status == CLI_OK) {
            status = measure_all(a, b, shapes, n_shapes, command);
        }
    }
    (void)attn_router_close(router);
    attn_registry_close(b->registry);
    if (b->place) {
        place.close(&place);
    }
    return status;
}

static void command_line(int argc, char **argv, char *text, size_t bytes)
{
    size_t used = (size_t)snprintf(text, bytes, "attnplug");
    for (int i = 0; i < argc && used < bytes; i++) {
        used += (size_t)snprintf(text + used, bytes - used, " %s", argv[i]);
    }
}

/* What the options mean; 0, or the exit status after a mistake, which was printed. */
static int request_read(arguments *a, attn_device *device, struct bench *b,
                        struct bench_shape *shapes, int *n_shapes)
{
    if (!cli_device(a->device, device)) {
        return CLI_USAGE;
    }
    if (!a->dtype) {
        a->dtype = device->type == ATTN_DEVICE_CPU ? "f32" : "f16";
    }
    if (!cli_dtype(a->dtype, &b->code, &b->bits)) {
        return CLI_USAGE;
    }
    for (uint32_t i = 0; i < (a->shapes.n ? a->shapes.n : 1); i++) {
        const char *text = a->shapes.n ? a->shapes.items[i] : "sd15";
        if (!bench_shapes_add(text, shapes, n_shapes)) {
            return cli_misuse("--shapes: \"%s\", expected sd15, sdxl, flux or B,H,Nq,Nk,D", text);
        }
    }
    if (a->rounds < 1 || a->rounds > BENCH_MAX_ROUNDS) {
        return cli_misuse("--rounds: %lld, expected 1 to %d", (long long)a->rounds,
                          BENCH_MAX_ROUNDS);
    }
    if (a->seconds < 1 || a->seconds > BENCH_MAX_SECONDS) {
        return cli_misuse("--seconds: %lld, expected 1 to %d", (long long)a->seconds,
                          BENCH_MAX_SECONDS);
    }
    /* An op that was measured alone would stand before those that were not, however slow. */
    if (a->tune && a->ops.n) {
        return cli_misuse("--tune measures every op of the device: expected no --op");
    }
    b->key_mass = a->key_mass;
    b->rounds = (int)a->rounds;
    b->seconds = (int)a->seconds;
    return CLI_OK;
}

int cmd_bench(int argc, char **argv)
{
    arguments a = {.device = "cpu", .rounds = 15, .seconds = 5};
    struct bench b = {0};
    struct bench_shape shapes[BENCH_MAX_SHAPES];
    attn_device device;
    char command[512];
    int first = 0, n_shapes = 0;
    const cli_option options[] = {
        {"op", CLI_TEXTS, &a.ops, "NAME",
         "an op: a name, an id or a file; may be repeated (default: all of the device)"},
        {"shapes", CLI_TEXTS, &a.shapes, "SET",
         "sd15, sdxl, flux or B,H,Nq,Nk,D; may be repeated (default sd15)"},
        {"device", CLI_TEXT, &a.device, "D", "cpu, cuda, cuda:1 (default cpu)"},
        {"dtype", CLI_TEXT, &a.dtype, "T", "f32, f16, bf16 (default f32 on cpu, f16 on cuda)"},
        {"key-mass", CLI_FLAG, &a.key_mass, NULL, "with key_mass, as SAG's layer asks for it"},
        {"rounds", CLI_INT, &a.rounds, "N", "rounds whose median is taken (15)"},
        {"seconds", CLI_INT, &a.seconds, "N",
         "fewer rounds, but one, of an op that would take longer for them at a shape (5)"},
        {"tune", CLI_FLAG, &a.tune, NULL,
         "keep the timings: auto asks in their order from now on, on this machine"},
        {"json", CLI_FLAG, &a.json, NULL, "for programs to read"},
    };
    const cli_command help = {
        "attnplug bench [--op NAME]... [--shapes SET]... [OPTIONS]",
        "Checks each op's result against the device's reference op, then times it, all ops in "
        "turns\n"
        "on the same memory. On a GPU: inside CUDA graphs over buffers that together exceed the "
        "L2\n"
        "cache, and eagerly; the ratio is to the cudnn op in the same run, the floor the longest "
        "of\n"
        "matrix products, exponentials and memory at the chip's highest rates.  On a CPU: the "
        "ratio "
        "is to\n"
        "math, timed on the queries that it verifies; the floor is the multiply-adds at this "
        "machine's\n"
        "peak, measured first in the same run.",
        options,
        sizeof options / sizeof *options,
        0,
        0};
    int status = cli_parse(&help, argc, argv, &first);
    if (status != CLI_GO) {
        return status;
    }
    status = request_read(&a, &device, &b, shapes, &n_shapes);
    if (status) {
        return status;
    }
    command_line(argc, argv, command, sizeof command);
    return run(&a, &b, &device, shapes, n_shapes, command);
}
