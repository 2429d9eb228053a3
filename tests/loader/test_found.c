/* Plugins of other people by name: whole ids, last parts of ids, and what is said where one does
 * not fit.  The files are copies of one right op under other ids.
 *
 * Argument: that op's file, whose id is org.attnplug.test.plain. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "attention.h"

#include "attn_router.h"
#include "error.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char *plain;
static char folder[] = "/tmp/attnplug-found-XXXXXX";
static const attn_device cpu = {ATTN_DEVICE_CPU, 0, "cpu"};
static const char first_id[] = "org.attnplug.test.plain";

static const char *const ids[] = {"com.acme.flash", "com.acme.quick", "com.rival.quick",
                                  "com.acme.math"};
enum { N_IDS = sizeof ids / sizeof *ids };

static void path_of(const char *in, const char *id, char path[128])
{
    assert_in_range(snprintf(path, 128, "%s/%s.so", in, id), 1, 127);
}

/* Both ids have room for 64 bytes in the file. */
static void copy_as(const char *in, const char *id, uint32_t flags)
{
    static char bytes[1 << 20];
    char path[128];
    FILE *from = fopen(plain, "rb");
    assert_non_null(from);
    const size_t n = fread(bytes, 1, sizeof bytes, from);
    (void)fclose(from);
    assert_in_range(n, 1000, sizeof bytes - 1);
    char *at = memmem(bytes, n, first_id, sizeof first_id);
    assert_non_null(at);
    memset(at, 0, sizeof first_id);
    memcpy(at, id, strlen(id));
    memcpy(at - offsetof(attn_head, id) + offsetof(attn_head, flags), &flags, sizeof flags);
    path_of(in, id, path);
    FILE *to = fopen(path, "wb");
    assert_non_null(to);
    assert_int_equal(fwrite(bytes, 1, n, to), n);
    assert_int_equal(fclose(to), 0);
}

static attn_registry *registry_on(const char *in)
{
    attn_registry *registry = NULL;
    const attn_registry_options options = {.size = sizeof options,
                                           .flags =
                                               ATTN_REGISTRY_ONLY_PATHS | ATTN_REGISTRY_TRUST_ALL,
                                           .paths = &in,
                                           .n_paths = 1};
    assert_int_equal(attn_registry_open(&options, &registry, NULL), ATTN_OK);
    return registry;
}

static int setup(void **state)
{
    assert_non_null(mkdtemp(folder));
    for (size_t i = 0; i < N_IDS; i++) {
        copy_as(folder, ids[i], 0);
    }
    unsetenv("ATTNPLUG_OP");
    unsetenv("DIFFSYNTH_ATTENTION_IMPLEMENTATION");
    *state = registry_on(folder);
    return 0;
}

static int teardown(void **state)
{
    char path[128];
    attn_registry_close(*state);
    for (size_t i = 0; i < N_IDS; i++) {
        path_of(folder, ids[i], path);
        unlink(path);
    }
    return rmdir(folder);
}

static void found(attn_registry *registry, const char *text, const char *op)
{
    ATTN_ERROR_ON(err, 1280);
    attn_name name = {.size = sizeof name};
    if (attn_name_find_in(registry, text, 0, &name, &err) != ATTN_OK) {
        fail_msg("%s: %s", text, err.text);
    }
    assert_null(name.processor);
    assert_string_equal(name.op, op);
    assert_int_equal(attn_name_find_in(registry, text, ATTN_NAME_OPS, &name, NULL), ATTN_OK);
}

static void refused(attn_registry *registry, const char *text, uint32_t kinds, attn_status status,
                    const char *const words[3])
{
    ATTN_ERROR_ON(err, 1280);
    attn_name name = {.size = sizeof name};
    assert_int_equal(attn_name_find_in(registry, text, kinds, &name, &err), status);
    for (int i = 0; i < 3 && words[i]; i++) {
        if (!strstr(err.text, words[i])) {
            fail_msg("%s: \"%s\" lacks \"%s\"", text, err.text, words[i]);
        }
    }
}

static void test_names(void **state)
{
    attn_name name = {.size = sizeof name};
    found(*state, "com.acme.flash", "com.acme.flash");
    found(*state, "flash", "com.acme.flash");
    found(*state, "com.rival.quick", "com.rival.quick");
    found(*state, "math", "math"); /* a name of ours goes before com.acme.math */
    found(*state, "com.acme.math", "com.acme.math");
    /* Ids of our own processors stand for their short names, be the plugin there or not. */
    assert_int_equal(attn_name_find("org.attnplug.fused", &name, NULL), ATTN_OK);
    assert_string_equal(name.processor, "fused");
    assert_int_equal(attn_name_find("lora+org.attnplug.added_kv", &name, NULL), ATTN_OK);
    assert_string_equal(name.processor, "lora+added_kv");
    assert_int_equal(attn_name_find("org.attnplug.AttnProcessor", &name, NULL), ATTN_NOT_FOUND);
    assert_int_equal(attn_name_find("org.attnplug.math", &name, NULL), ATTN_NOT_FOUND);
}

static void test_refusals(void **state)
{
    static const char *const several[] = {"com.acme.quick", "com.rival.quick", "several"};
    const char *const nowhere[] = {"com.acme.flashy", "looked in: ", folder};
    static const char *const kind[] = {"com.acme.flash", "an op, not a processor", NULL};
    static const char *const unknown[] = {"\"flashy\" is no processor or op", NULL, NULL};
    static const char *const own[] = {"org.attnplug.math", "looked in: ", NULL};
    refused(*state, "quick", 0, ATTN_INVALID, several);
    refused(*state, "com.acme.flashy", 0, ATTN_NOT_FOUND, nowhere);
    refused(*state, "lora+com.acme.flashy", 0, ATTN_NOT_FOUND, nowhere);
    refused(*state, "org.attnplug.math", 0, ATTN_NOT_FOUND, own);
    refused(*state, "com.acme.flash", ATTN_NAME_PROCESSORS, ATTN_INVALID, kind);
    refused(*state, "lora+com.acme.flash", 0, ATTN_INVALID, kind);
    refused(*state, "flashy", 0, ATTN_NOT_FOUND, unknown);
    refused(*state, "flash", ATTN_NAME_PROCESSORS, ATTN_NOT_FOUND, (const char *const[3]){NULL});
}

/* Through the router too, whoever asks. */
static void test_router(void **state)
{
    ATTN_ERROR_ON(err, 1280);
    attn_router *router = NULL;
    attn_host_op *op = NULL;
    attention a;
    char id[64];
    static const char *const names[] = {"flash", "com.acme.quick"};
    assert_int_equal(attn_router_open(*state, &cpu, NULL, &router, NULL), ATTN_OK);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        attention_fill(&a, i);
        attn_op_call call = attention_call(&a);
        if (attn_attend_call(router, names[i], &call, &err) != ATTN_OK ||
            !(attention_error(&a) < 2e-6)) {
            fail_msg("%s: error %g: %s", names[i], attention_error(&a), err.text);
        }
    }
    attn_op_call call = attention_call(&a);
    assert_int_equal(attn_attend_call(router, "quick", &call, &err), ATTN_INVALID);
    assert_non_null(strstr(err.text, "com.rival.quick"));
    assert_int_equal(attn_router_op(router, "flash", NULL, 0, &op, NULL), ATTN_OK);
    assert_string_equal(attn_host_op_head(op)->id, "com.acme.flash");
    assert_int_equal(attn_op_id_in(*state, "flash", "cpu", id, NULL), ATTN_OK);
    assert_string_equal(id, "com.acme.flash");
    assert_int_equal(attn_op_id_in(*state, "math", "cuda", id, NULL), ATTN_OK);
    assert_string_equal(id, "org.attnplug.cuda_math");
    assert_int_equal(attn_op_id_in(*state, "quick", "cpu", id, &err), ATTN_INVALID);
    assert_int_equal(attn_op_id_in(*state, "flashy", "cpu", id, &err), ATTN_NOT_FOUND);
    assert_int_equal(attn_router_close(router), ATTN_OK);
}

/* Many that auto may not take unasked, and behind them one that it may. */
static void test_auto_looks_at_all(void **state)
{
    enum { MANY = 100 };
    char many[] = "/tmp/attnplug-many-XXXXXX", names[MANY][64], path[128];
    ATTN_ERROR_ON(err, 1280);
    attn_router *router = NULL;
    attn_plan *plan = NULL;
    uint64_t scratch = 0;
    attention a;
    (void)state;
    assert_non_null(mkdtemp(many));
    for (int i = 0; i < MANY; i++) {
        (void)snprintf(names[i], sizeof names[i], "com.many.n%03d", i);
        copy_as(many, names[i], i + 1 < MANY ? ATTN_HEAD_APPROXIMATE : 0);
    }
    attn_registry *registry = registry_on(many);
    assert_int_equal(attn_router_open(registry, &cpu, NULL, &router, NULL), ATTN_OK);
    attn_op_call call = attention_call(&a);
    if (attn_router_prepare(router, NULL, NULL, 0, 0, &call, &plan, &scratch, &err) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
    assert_string_equal(attn_plan_op(plan), names[MANY - 1]);
    attn_plan_release(plan);
    assert_int_equal(attn_router_close(router), ATTN_OK);
    attn_registry_close(registry);
    for (int i = 0; i < MANY; i++) {
        path_of(many, names[i], path);
        unlink(path);
    }
    assert_int_equal(rmdir(many), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_router),
        cmocka_unit_test(test_auto_looks_at_all),
    };
    if (argc < 2) {
        (void)fprintf(stderr, "usage: %s PLAIN.so\n", argv[0]);
        return 2;
    }
    plain = argv[1];
    return cmocka_run_group_tests(tests, setup, teardown);
}
