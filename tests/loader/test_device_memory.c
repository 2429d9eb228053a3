/* Ops that have memory of their own: host tensors by way of it, scratch in it, and what is made of
 * an "attn.memory/1" that does not keep the contract. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "attention.h"

#include "attn_router.h"
#include "error.h"

#include <stdio.h>

#define ID "org.attnplug.test.device"

static const char *plugin;
static char log_text[4096];

typedef struct {
    attn_registry *registry;
    attn_router *router;
} fixture;

static void take_log(void *ctx, int32_t level, const char *text)
{
    (void)ctx, (void)level;
    size_t n = strlen(log_text);
    if (strncmp(text, "device: ", 8) == 0) {
        (void)snprintf(log_text + n, sizeof log_text - n, "%s%s", n ? ", " : "", text + 8);
    }
}

static void open_router(fixture *f, const attn_device *device)
{
    ATTN_ERROR_ON(err, 1024);
    static const attn_host host = {.size = sizeof host, .max_threads = 1, .log = take_log};
    attn_registry_options options = {.size = sizeof options,
                                     .flags = ATTN_REGISTRY_ONLY_PATHS | ATTN_REGISTRY_TRUST_ALL,
                                     .paths = &plugin,
                                     .n_paths = 1};
    memset(f, 0, sizeof *f);
    if (attn_registry_open(&options, &f->registry, &err) != ATTN_OK ||
        attn_router_open(f->registry, device, &host, &f->router, &err) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
    log_text[0] = 0;
}

static void close_router(fixture *f)
{
    assert_int_equal(attn_router_close(f->router), ATTN_OK);
    attn_registry_close(f->registry);
}

static int setup(void **state)
{
    (void)state;
    unsetenv("ATTNPLUG_OP");
    unsetenv("DIFFSYNTH_ATTENTION_IMPLEMENTATION");
    unsetenv("DEVICE_FAULT");
    setenv("XDG_CACHE_HOME", "/proc/nonexistent", 1);
    return 0;
}

static const attn_device cpu = {ATTN_DEVICE_CPU, 0, "cpu"};
static const attn_device own = {ATTN_DEVICE_EXT, 0, "test"};

static void test_staged(void **state)
{
    ATTN_ERROR_ON(err, 1024);
    fixture f;
    attention a;
    (void)state;
    open_router(&f, &cpu);
    attention_fill(&a, 1);
    attn_op_call call = attention_call(&a);
    if (attn_attend_call(f.router, ID, &call, &err) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
    assert_true(attention_error(&a) < 2e-6);
    close_router(&f);
    assert_string_equal(log_text, "run, synchronize the default stream, release, free");
}

/* What is wrong with its memory is an error that says so, in a fault of the op's alone. */
static void test_faults(void **state)
{
    static const struct {
        const char *fault;
        attn_status status;
        const char *words;
    } faults[] = {
        {"short", ATTN_UNSUPPORTED, "gives no attn.memory/1"},
        {"alloc", ATTN_INTERNAL, ID ": alloc of attn.memory/1 returned ok and NULL"},
        {"copy", ATTN_INTERNAL, ID ": copy_in of attn.memory/1 returned status 64"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        ATTN_ERROR_ON(err, 1024);
        fixture f;
        attention a;
        setenv("DEVICE_FAULT", faults[i].fault, 1);
        open_router(&f, &cpu);
        attention_fill(&a, 1);
        attn_op_call call = attention_call(&a);
        attn_status status = attn_attend_call(f.router, ID, &call, &err);
        if (status != faults[i].status || !strstr(err.text, faults[i].words)) {
            fail_msg("%s: status %d (%s)", faults[i].fault, status, err.text);
        }
        close_router(&f);
    }
}

static void to_device(attn_op_call *call)
{
    attn_tensor *const all[] = {&call->q,    &call->k,   &call->v,        &call->out,  &call->bias,
                                &call->mask, &call->lse, &call->key_mass, &call->probs};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        all[i]->device_type = ATTN_DEVICE_EXT;
    }
}

/* Kept scratch goes only when the stream has passed what was queued with it. */
static void test_scratch(void **state)
{
    ATTN_ERROR_ON(err, 1024);
    int stream = 0;
    const attn_ext extension = {.id = "org.attnplug.test.nothing/1", .size = sizeof extension};
    fixture f;
    attention a;
    (void)state;
    open_router(&f, &own);
    attention_fill(&a, 1);
    attn_op_call call = attention_call(&a);
    to_device(&call);
    call.stream = &stream;
    for (int i = 0; i < 2; i++) {
        if (attn_attend_call(f.router, ID, &call, &err) != ATTN_OK) {
            fail_msg("%s", err.text);
        }
    }
    assert_string_equal(log_text, "run, run");
    attn_router_trim(f.router);
    assert_string_equal(log_text, "run, run, synchronize, free, release");
    log_text[0] = 0;
    call.ext = &extension; /* such calls keep nothing */
    assert_int_equal(attn_attend_call(f.router, ID, &call, &err), ATTN_OK);
    assert_string_equal(log_text, "run, synchronize, free, release");
    assert_true(attention_error(&a) < 2e-6);
    close_router(&f);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_staged, setup),
        cmocka_unit_test_setup(test_faults, setup),
        cmocka_unit_test_setup(test_scratch, setup),
    };
    if (argc < 2) {
        (void)fprintf(stderr, "usage: %s PLUGIN.so\n", argv[0]);
        return 2;
    }
    plugin = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
