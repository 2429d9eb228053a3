/* Routing: order of precedence, refusals with their reason, inner ops, one-call attention. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "attention.h"

#include "attn_router.h"
#include "error.h"

#include <pthread.h>
#include <stdio.h>
#include <sys/utsname.h>
#include <unistd.h>

static const char *plugins; /* the folder of built plugins */
static const attn_device cpu = {ATTN_DEVICE_CPU, 0, "cpu"};

typedef struct {
    attn_registry *registry;
    attn_router *router;
    char log[4096];
    int warnings;
} fixture;

static void take_log(void *ctx, int32_t level, const char *text)
{
    fixture *f = ctx;
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock);
    f->warnings += level <= 1;
    size_t n = strlen(f->log);
    (void)snprintf(f->log + n, sizeof f->log - n, "%s\n", text);
    pthread_mutex_unlock(&lock);
}

static void open_router(fixture *f)
{
    ATTN_ERROR_ON(err, 1024);
    attn_registry_options options = {.size = sizeof options,
                                     .flags = ATTN_REGISTRY_ONLY_PATHS | ATTN_REGISTRY_TRUST_ALL,
                                     .paths = &plugins,
                                     .n_paths = 1,
                                     .log = take_log,
                                     .log_ctx = f};
    memset(f, 0, sizeof *f);
    if (attn_registry_open(&options, &f->registry, &err) != ATTN_OK ||
        attn_router_open(f->registry, &cpu, NULL, &f->router, &err) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
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
    setenv("XDG_CACHE_HOME", "/proc/nonexistent", 1);
    return 0;
}

static void test_every_name_computes(void **state)
{
    static const char *const ops[] = {
        NULL,    "auto",     "math",          "memory_efficient",    "sliced",
        "torch", "xformers", "AttnProcessor", "SlicedAttnProcessor", "org.attnplug.math"};
    fixture f;
    attention a;
    (void)state;
    open_router(&f);
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        ATTN_ERROR_ON(err, 1024);
        attention_fill(&a, i);
        attn_op_call call = attention_call(&a);
        attn_status status = attn_attend_call(f.router, ops[i], &call, &err);
        if (status != ATTN_OK || !(attention_error(&a) < 2e-6)) {
            fail_msg("%s: status %d, error %g: %s", ops[i] ? ops[i] : "(none)", status,
                     attention_error(&a), err.text);
        }
    }
    close_router(&f);
}

static attn_status prepare(fixture *f, const char *op, const attn_param *params, uint32_t n,
                           uint32_t flags, attn_plan **plan, attn_error *err)
{
    static attention a;
    attn_op_call call = attention_call(&a);
    uint64_t scratch = 0;
    return attn_router_prepare(f->router, op, params, n, flags, &call, plan, &scratch, err);
}

static void expect_op(fixture *f, const char *op, const char *expected)
{
    ATTN_ERROR_ON(err, 1024);
    attn_plan *plan = NULL;
    if (prepare(f, op, NULL, 0, 0, &plan, &err) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
    assert_string_equal(attn_plan_op(plan), expected);
    assert_int_equal(attn_router_close(f->router), ATTN_BUSY);
    attn_plan_release(plan);
}

static void test_precedence(void **state)
{
    fixture f;
    (void)state;
    setenv("DIFFSYNTH_ATTENTION_IMPLEMENTATION", "xformers", 1);
    open_router(&f);
    expect_op(&f, NULL, "org.attnplug.memory_efficient");
    close_router(&f);

    setenv("ATTNPLUG_OP", "math", 1);
    open_router(&f);
    expect_op(&f, NULL, "org.attnplug.math");
    expect_op(&f, "auto", "org.attnplug.math");
    expect_op(&f, "sliced", "org.attnplug.sliced");
    close_router(&f);
    setup(NULL);
}

static void test_measured_order(void **state)
{
    char folder[] = "/tmp/attnplug-test-XXXXXX", path[256];
    struct utsname machine;
    const attn_order_row rows[] = {
        {sizeof *rows, 0, "cpu", "f32", {B, H, NQ, NK, D}, "org.attnplug.math", "0.1.0", 5},
        {sizeof *rows,
         0,
         "cpu",
         "f32",
         {B, H, NQ, NK, D},
         "org.attnplug.memory_efficient",
         "0.1.0",
         9},
    };
    fixture f;
    (void)state;
    assert_non_null(mkdtemp(folder));
    setenv("XDG_CACHE_HOME", folder, 1);
    assert_int_equal(attn_order_save(NULL, rows, 2, NULL), ATTN_OK);
    open_router(&f);
    expect_op(&f, NULL, "org.attnplug.math");
    close_router(&f);

    assert_int_equal(uname(&machine), 0);
    (void)snprintf(path, sizeof path, "%s/attnplug/order-%.64s", folder, machine.nodename);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    (void)fputs("# attnplug order 1\nnonsense\n", file);
    assert_int_equal(fclose(file), 0);
    open_router(&f);
    assert_non_null(strstr(f.log, "line 2 is \"nonsense\""));
    expect_op(&f, NULL, "org.attnplug.memory_efficient");
    close_router(&f);
    unlink(path);
    setup(NULL);
}

static void test_wrong_variables(void **state)
{
    ATTN_ERROR_ON(err, 1024);
    attn_plan *plan = NULL;
    fixture f;
    (void)state;
    setenv("ATTNPLUG_OP", "fastest", 1);
    open_router(&f);
    assert_int_equal(prepare(&f, NULL, NULL, 0, 0, &plan, &err), ATTN_NOT_FOUND);
    assert_non_null(strstr(err.text, "ATTNPLUG_OP=fastest names no op; there are: "));
    assert_non_null(strstr(err.text, "memory_efficient"));
    close_router(&f);

    /* ATTNPLUG_OP is kept or an error; DiffSynth's falls through to auto, with one warning. */
    setenv("ATTNPLUG_OP", "sage", 1);
    open_router(&f);
    assert_int_equal(prepare(&f, NULL, NULL, 0, 0, &plan, &err), ATTN_NOT_FOUND);
    assert_non_null(strstr(err.text, "ATTNPLUG_OP=sage: sage.so"));
    close_router(&f);
    unsetenv("ATTNPLUG_OP");
    setenv("DIFFSYNTH_ATTENTION_IMPLEMENTATION", "FLASH_attention_2", 1);
    open_router(&f);
    expect_op(&f, NULL, "org.attnplug.memory_efficient");
    expect_op(&f, NULL, "org.attnplug.memory_efficient");
    assert_int_equal(f.warnings, 1);
    close_router(&f);
    setup(NULL);
}

static void test_refusals(void **state)
{
    const attn_param itself = {.name = "op", .kind = ATTN_PARAM_TEXT, .text = "sliced"};
    const attn_param inner = {.name = "op", .kind = ATTN_PARAM_TEXT, .text = "memory_efficient"};
    ATTN_ERROR_ON(err, 1024);
    attn_plan *plan = NULL;
    fixture f;
    attention a;
    (void)state;
    open_router(&f);
    assert_int_equal(prepare(&f, "sliced", &itself, 1, 0, &plan, &err), ATTN_INVALID);
    assert_non_null(strstr(err.text, "org.attnplug.sliced works through itself"));
    assert_int_equal(prepare(&f, "sliced", &inner, 1, 0, &plan, &err), ATTN_OK);
    attn_plan_release(plan);
    assert_int_equal(prepare(&f, "memory_eficient", NULL, 0, 0, &plan, &err), ATTN_NOT_FOUND);
    assert_non_null(strstr(err.text, "the nearest is \"memory_efficient\""));
    assert_int_equal(prepare(&f, "sage", NULL, 0, 0, &plan, &err), ATTN_NOT_FOUND);
    assert_non_null(strstr(err.text, "sage.so (org.attnplug.sage) is in none of: "));
    assert_non_null(strstr(err.text, plugins));

    attn_op_call call = attention_call(&a);
    call.k.shape[3] = 3;
    assert_int_equal(attn_attend_call(f.router, NULL, &call, &err), ATTN_INVALID);
    assert_string_equal(err.text, "k: shape[3] is 3, expected 4");
    call = attention_call(&a);
    call.scale = NAN;
    assert_int_equal(attn_attend_call(f.router, NULL, &call, &err), ATTN_INVALID);
    call = attention_call(&a);
    call.mask = attention_tensor(&a, 4, B, H, NQ, NK);
    call.mask.bits = 8;
    for (uint8_t code = ATTN_CODE_INT; code <= 6; code += 6) { /* DLPack's int and bool */
        call.mask.code = code;
        assert_int_equal(attn_attend_call(f.router, NULL, &call, &err), ATTN_INVALID);
        assert_non_null(strstr(err.text, "8 bits), expected 8-bit unsigned"));
    }
    close_router(&f);
}

static void *attend_often(void *arg)
{
    fixture *f = arg;
    attention a;
    for (uint64_t i = 0; i < 200; i++) {
        ATTN_ERROR_ON(err, 1024);
        attention_fill(&a, i);
        attn_op_call call = attention_call(&a);
        if (attn_attend_call(f->router, i % 2 ? "sliced" : NULL, &call, &err) != ATTN_OK ||
            !(attention_error(&a) < 2e-6)) {
            return "failed";
        }
    }
    return NULL;
}

static void test_threads(void **state)
{
    pthread_t threads[8];
    fixture f;
    (void)state;
    open_router(&f);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, attend_often, &f), 0);
    }
    for (int i = 0; i < 8; i++) {
        void *result = NULL;
        pthread_join(threads[i], &result);
        assert_null(result);
    }
    close_router(&f);
}

static void test_why(void **state)
{
    attn_why rows[8] = {{.size = sizeof *rows}};
    attention a;
    attn_op_call call = attention_call(&a);
    uint32_t n = 0;
    fixture f;
    (void)state;
    open_router(&f);
    assert_int_equal(attn_router_why(f.router, &call, 0, rows, 8, &n, NULL), ATTN_OK);
    assert_int_equal(n, 2);
    assert_string_equal(rows[0].op, "org.attnplug.memory_efficient");
    assert_int_equal(rows[0].taken, 1);
    assert_string_equal(rows[1].op, "org.attnplug.math");
    assert_int_equal(rows[1].taken, 0);
    close_router(&f);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_every_name_computes, setup),
        cmocka_unit_test_setup(test_precedence, setup),
        cmocka_unit_test_setup(test_measured_order, setup),
        cmocka_unit_test_setup(test_wrong_variables, setup),
        cmocka_unit_test_setup(test_refusals, setup),
        cmocka_unit_test_setup(test_threads, setup),
        cmocka_unit_test_setup(test_why, setup),
    };
    plugins = argc > 1 ? argv[1] : "attnplug/v1";
    return cmocka_run_group_tests(tests, NULL, NULL);
}
