/* What needs no GPU of the CUDA ops: which kernels serve a call, what a call must look like, and
 * what the plugins say where there is no device.
 *
 *   test_cuda_flash [FOLDER OF PLUGINS WITH THE CUDA OPS]
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <dlfcn.h>

#include "cuda_math_problem.h"
#include "flash_problem.h"
#include "flash_select.h"
#include "flash_split.h"

static const char *plugin_folder;

static attn_tensor tensor(int64_t b, int64_t h, int64_t n, int64_t d, int bits)
{
    attn_tensor t = {.shape = {b, h, n, d},
                     .stride = {h * n * d, n * d, d, 1},
                     .device_type = ATTN_DEVICE_CUDA,
                     .code = ATTN_CODE_FLOAT,
                     .bits = (uint8_t)bits,
                     .lanes = 1,
                     .rank = 4,
                     .align = 16};
    return t;
}

static attn_op_call call_of(int64_t b, int64_t h, int64_t nq, int64_t nk, int64_t d, int bits)
{
    attn_op_call c = {.size = sizeof c};
    c.q = tensor(b, h, nq, d, bits);
    c.k = tensor(b, h, nk, d, bits);
    c.v = tensor(b, h, nk, d, bits);
    c.out = tensor(b, h, nq, d, bits);
    return c;
}

static void want_key_mass(attn_op_call *c)
{
    c->key_mass = (attn_tensor){.shape = {c->q.shape[0], c->k.shape[2]},
                                .stride = {c->k.shape[2], 1},
                                .device_type = ATTN_DEVICE_CUDA,
                                .code = ATTN_CODE_FLOAT,
                                .bits = 32,
                                .lanes = 1,
                                .rank = 2,
                                .align = 16};
}

static flash_problem problem_of(const attn_op_call *c)
{
    char text[256] = "";
    attn_error err = {sizeof err, sizeof text, text, 0};
    struct op_shape shape;
    flash_problem p = {0};
    if (op_call_check("test", c, &shape, &err) != ATTN_OK ||
        flash_problem_of("test", c, &shape, &p, &err) != ATTN_OK)
        fail_msg("%s", text);
    return p;
}

static flash_choice choice_of(const attn_op_call *c, int hopper, int aligned)
{
    const flash_problem p = problem_of(c);
    return flash_select(&p, hopper, aligned);
}

static void test_families(void **state)
{
    (void)state;
    static const struct {
        int64_t nk, d;
        int family, index, set;
    } cases[] = {
        {4096, 40, FLASH_LONG, 0, -1},
        {4096, 8, FLASH_LONG, 0, -1},
        {4096, 48, FLASH_LONG, 1, -1},
        {1024, 80, FLASH_LONG, 2, -1},
        {300, 96, FLASH_LONG, 3, -1},
        {1024, 160, FLASH_LONG, 4, -1},
        {257, 256, FLASH_LONG, 5, -1},
        {4096, 512, FLASH_LONG, 6, -1},
        {10, 264, FLASH_LONG, 6, -1},
        {64, 160, FLASH_SHORT, 4, FLASH_SHORT_64},
        {65, 40, FLASH_SHORT, 0, FLASH_SHORT_80},
        {77, 40, FLASH_SHORT, 0, FLASH_SHORT_80},
        {128, 64, FLASH_SHORT, 1, FLASH_SHORT_128},
        {256, 160, FLASH_SHORT, 4, FLASH_SHORT_256},
        {81, 104, FLASH_SHORT, 3, FLASH_SHORT_128},
        {256, 192, FLASH_LONG, 5, -1},
        {4096, 12, FLASH_GENERIC, 0, -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const attn_op_call c = call_of(2, 8, 100, cases[i].nk, cases[i].d, 16);
        const flash_choice choice = choice_of(&c, 1, 1);
        if ((int)choice.family != cases[i].family || choice.index != cases[i].index ||
            choice.set != cases[i].set)
            fail_msg("%lld keys, D %lld: family %d index %d set %d", (long long)cases[i].nk,
                     (long long)cases[i].d, choice.family, choice.index, choice.set);
        assert_int_equal(choice_of(&c, 0, 1).family, FLASH_GENERIC);
        assert_int_equal(choice_of(&c, 1, 0).family, FLASH_GENERIC);
    }
}

/* 132 multiprocessors: a pair of them for each 64 queries, as long as there are enough. */
static void test_pairs(void **state)
{
    (void)state;
    static const struct {
        int64_t b, h, nq;
        int pair;
    } cases[] = {
        {2, 8, 256, 1}, {1, 1, 1, 1},   {1, 66, 64, 1},
        {1, 67, 64, 0}, {2, 33, 65, 0}, {4, 8, 256, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const attn_op_call c = call_of(cases[i].b, cases[i].h, cases[i].nq, 256, 160, 16);
        const flash_problem p = problem_of(&c);
        if (flash_pair(&p, 132) != cases[i].pair)
            fail_msg("B %lld, H %lld, Nq %lld: expected %d", (long long)cases[i].b,
                     (long long)cases[i].h, (long long)cases[i].nq, cases[i].pair);
    }
    const attn_op_call one = call_of(1, 1, 1, 256, 160, 16);
    const flash_problem p = problem_of(&one);
    assert_true(flash_pair(&p, 2));
    assert_false(flash_pair(&p, 1)); /* of a divided GPU: no other to share with */
}

/* 132 multiprocessors: 192 rows where that saves a wave that is worth it. */
static void test_tall_tiles(void **state)
{
    (void)state;
    static const struct {
        int64_t b, h, nq;
        int tall;
    } cases[] = {
        {2, 20, 1024, 1},                   /* 2 waves of 240 tiles, not 3 of 320 */
        {2, 10, 4096, 0},                   /* 4 of 440, not 5 of 640: more rows than it saves */
        {1, 1, 1024, 0},                    /* one wave either way */
        {1, 1, 1, 0},     {1, 132, 192, 1}, /* one wave, not two */
        {1, 132, 128, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const attn_op_call c = call_of(cases[i].b, cases[i].h, cases[i].nq, 1024, 64, 16);
        const flash_problem p = problem_of(&c);
        if (flash_tall(&p, 132) != cases[i].tall)
            fail_msg("batch %lld, %lld heads, %lld queries: expected %d", (long long)cases[i].b,
                     (long long)cases[i].h, (long long)cases[i].nq, cases[i].tall);
    }
}

static void test_generic_reasons(void **state)
{
    (void)state;
    attn_op_call c = call_of(1, 4, 64, 1024, 64, 16);
    c.bias = tensor(1, 4, 64, 1024, 16);
    assert_int_equal(choice_of(&c, 1, 1).family, FLASH_GENERIC);
    c.bias = (attn_tensor){0};
    c.k.stride[2] = 68; /* 136 bytes: rows leave the 16-byte grid */
    c.k.stride[1] = 68 * 1024;
    c.k.stride[0] = 4 * 68 * 1024;
    assert_int_equal(choice_of(&c, 1, 1).family, FLASH_GENERIC);
    c = call_of(1, 4, 64, 1024, 64, 16);
    c.v.stride[2] = 0;
    assert_int_equal(choice_of(&c, 1, 1).family, FLASH_GENERIC);
    c = call_of(1, 4, 64, 1024, 64, 16);
    c.v.shape[3] = c.out.shape[3] = 32;
    assert_int_equal(choice_of(&c, 1, 1).family, FLASH_GENERIC);
}

/* Causal masks and windows have Hopper kernels up to D 160, whatever the number of keys; with a
 * bias they are generic. */
static void test_bands(void **state)
{
    (void)state;
    static const struct {
        int64_t nk, d;
        int family, index;
    } cases[] = {
        {4096, 40, FLASH_BAND, 0},    {77, 64, FLASH_BAND, 1},    {256, 72, FLASH_BAND, 2},
        {1024, 128, FLASH_BAND, 3},   {1024, 136, FLASH_BAND, 4}, {1024, 168, FLASH_GENERIC, 2},
        {1024, 60, FLASH_GENERIC, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        attn_op_call c = call_of(2, 8, 100, cases[i].nk, cases[i].d, 16);
        c.flags = ATTN_CALL_BAND;
        c.band_lo = INT64_MIN;
        const flash_choice choice = choice_of(&c, 1, 1);
        if ((int)choice.family != cases[i].family || choice.index != cases[i].index)
            fail_msg("%lld keys, D %lld under a band: family %d index %d", (long long)cases[i].nk,
                     (long long)cases[i].d, choice.family, choice.index);
        assert_int_equal(choice_of(&c, 0, 1).family, FLASH_GENERIC);
        c.bias = tensor(2, 8, 100, cases[i].nk, 16);
        assert_int_equal(choice_of(&c, 1, 1).family, FLASH_GENERIC);
    }
    attn_op_call c = call_of(2, 8, 300, 300, 64, 16);
    c.flags = ATTN_CALL_BAND;
    want_key_mass(&c);
    const flash_choice choice = choice_of(&c, 1, 1); /* its second pass knows no band */
    assert_int_equal(choice.family, FLASH_BAND);
    assert_true(choice.second_pass);
    assert_int_equal(choice.mass, -1);
}

/* fp32 has one family on every chip and for every call. */
static void test_fp32(void **state)
{
    (void)state;
    static const int64_t dims[][2] = {{8, 0},   {40, 0},  {41, 1},  {72, 2}, {81, 3},
                                      {136, 4}, {192, 5}, {257, 6}, {512, 6}};
    for (size_t i = 0; i < sizeof dims / sizeof dims[0]; i++) {
        attn_op_call c = call_of(2, 8, 100, 333, dims[i][0], 32);
        for (int hopper = 0; hopper < 2; hopper++) {
            assert_int_equal(choice_of(&c, hopper, 0).family, FLASH_SPLIT);
            assert_int_equal(choice_of(&c, hopper, 1).index, dims[i][1]);
        }
        c.flags = ATTN_CALL_BAND;
        c.mask = tensor(2, 8, 100, 333, 32);
        c.mask.code = ATTN_CODE_UINT;
        c.mask.bits = 8;
        assert_int_equal(choice_of(&c, 1, 1).family, FLASH_SPLIT);
    }
    attn_op_call c = call_of(1, 2, 100, 70, 24, 32);
    c.v.shape[3] = c.out.shape[3] = 100; /* the wider of both decides */
    assert_int_equal(choice_of(&c, 1, 1).index, 3);
}

/* What fp32 keeps in scratch: K and V as two fp16 parts in whole tiles of 64 keys, 48 columns for
 * 40; with a second pass Q, too. */
static void test_fp32_scratch(void **state)
{
    (void)state;
    attn_op_call c = call_of(2, 8, 100, 77, 40, 32);
    flash_problem p = problem_of(&c);
    const flash_split_layout plain = flash_split_lay_out(&p, flash_split_columns(40), 0);
    assert_int_equal(flash_split_columns(40), 48);
    assert_int_equal(plain.k_rows, 128);
    assert_int_equal(plain.v - plain.k, 2 * 16 * 128 * 48 * 2);
    assert_int_equal(plain.back, 2 * (plain.v - plain.k));
    assert_true(flash_scratch(&p, 1) >= plain.bytes && flash_scratch(&p, 1) < plain.bytes + 256);
    c = call_of(2, 8, 100, 177, 40, 32);
    want_key_mass(&c);
    p = problem_of(&c);
    const flash_split_layout both = flash_split_lay_out(&p, 48, 1);
    assert_int_equal(both.back - both.q, 2 * 16 * 128 * 48 * 2);
    assert_true(flash_scratch(&p, 1) >= both.bytes + 2 * 8 * 100 * 8 + 2 * 8 * 177 * 4);
    c = call_of(1, 2, 10, 0, 64, 32); /* no keys: nothing to stage */
    p = problem_of(&c);
    assert_int_equal(flash_split_lay_out(&p, 64, 0).bytes, 0);
}

/* fp32 key_mass of few keys is plain, but where there is much to do, or something to hide. */
static void test_fp32_key_mass(void **state)
{
    (void)state;
    static const struct {
        int64_t b, h, nq, nk, d;
        int family, index, parts;
    } cases[] = {
        {2, 8, 64, 64, 160, FLASH_PLAIN, 2, 4},    /* 64 blocks of 16 queries */
        {2, 8, 256, 77, 64, FLASH_PLAIN, 3, 8},    /* 128 of 32 */
        {2, 8, 1024, 77, 80, FLASH_PLAIN, 7, 16},  /* 256 of 64 */
        {2, 8, 64, 129, 40, FLASH_SPLIT, 0, 1},    /* more keys */
        {1, 8, 64, 64, 200, FLASH_SPLIT, 5, 1},    /* wider values than it is compiled for */
        {2, 8, 4096, 77, 40, FLASH_SPLIT, 0, 8},   /* too much; 512 queries a block */
        {2, 8, 4096, 4096, 40, FLASH_SPLIT, 0, 1}, /* enough blocks without parts */
        {1, 1, 100, 300, 40, FLASH_SPLIT, 0, 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        attn_op_call c = call_of(cases[i].b, cases[i].h, cases[i].nq, cases[i].nk, cases[i].d, 32);
        assert_int_equal(choice_of(&c, 1, 1).family, FLASH_SPLIT);
        want_key_mass(&c);
        const flash_choice choice = choice_of(&c, 1, 0);
        if ((int)choice.family != cases[i].family || choice.index != cases[i].index ||
            choice.mass_parts != cases[i].parts)
            fail_msg("case %zu: family %d index %d, %d parts", i, choice.family, choice.index,
                     choice.mass_parts);
        assert_int_equal(choice.mass_bytes, (uint64_t)cases[i].b * (uint64_t)cases[i].h *
                                                (uint64_t)cases[i].parts * (uint64_t)cases[i].nk *
                                                4);
        c.mask = tensor(cases[i].b, cases[i].h, cases[i].nq, cases[i].nk, 32);
        c.mask.code = ATTN_CODE_UINT;
        c.mask.bits = 8;
        assert_int_equal(choice_of(&c, 1, 1).family, FLASH_SPLIT);
    }
    attn_op_call c = call_of(2, 8, 64, 64, 192, 32);
    want_key_mass(&c);
    assert_int_equal(choice_of(&c, 1, 1).family, FLASH_PLAIN);
    assert_int_equal(choice_of(&c, 0, 1).family, FLASH_SPLIT); /* 117 KB of shared memory */
    c = call_of(2, 8, 64, 64, 80, 32);
    want_key_mass(&c);
    assert_int_equal(choice_of(&c, 0, 1).family, FLASH_PLAIN);
    c.v.stride[3] = 2;
    assert_int_equal(choice_of(&c, 1, 1).family, FLASH_SPLIT);
}

static void test_key_mass_and_scratch(void **state)
{
    (void)state;
    attn_op_call c = call_of(2, 8, 64, 64, 160, 16);
    want_key_mass(&c);
    flash_choice choice = choice_of(&c, 1, 1);
    assert_int_equal(choice.set, FLASH_SHORT_MASS_64);
    assert_true(choice.clustered);
    assert_int_equal(choice.mass_bytes, 0);
    attn_op_call alone = call_of(2, 1, 64, 64, 160, 16); /* one head is no cluster */
    want_key_mass(&alone);
    assert_false(choice_of(&alone, 1, 1).clustered);
    assert_int_equal(choice_of(&alone, 1, 1).mass_parts, 1);
    flash_problem p = problem_of(&c);
    /* data that turns out unaligned goes through the generic kernels: log-sum-exp and one partial
     * sum a head */
    assert_int_equal(flash_scratch(&p, 1), 2 * 8 * 64 * 4 + 2 * 8 * 64 * 4);
    c = call_of(2, 8, 256, 256, 160, 16);
    want_key_mass(&c);
    choice = choice_of(&c, 1, 1);
    assert_int_equal(choice.set, FLASH_SHORT_MASS_256);
    assert_false(choice.clustered);
    assert_int_equal(choice.mass_parts, 4);
    assert_int_equal(choice.mass_bytes, 2 * 8 * 4 * 256 * 4);
    c = call_of(2, 8, 4096, 4096, 40, 16);
    want_key_mass(&c);
    choice = choice_of(&c, 1, 1);
    assert_int_equal(choice.family, FLASH_LONG);
    assert_int_equal(choice.mass, 0);
    assert_int_equal(choice.lse_bytes, 2 * 8 * 4096 * 4);
    assert_int_equal(choice.mass_bytes, 2 * 8 * 4096 * 4); /* O(N): no map */
    c.k.shape[1] = c.v.shape[1] = 2; /* key heads are shared: the generic second pass */
    assert_int_equal(choice_of(&c, 1, 1).mass, -1);
    c = call_of(2, 8, 4096, 4096, 40, 16);
    p = problem_of(&c);
    assert_int_equal(flash_scratch(&p, 1), 0);
    c = call_of(2, 8, 4096, 4096, 40, 32); /* fp32: shift and sum of each row */
    want_key_mass(&c);
    choice = choice_of(&c, 1, 1);
    assert_int_equal(choice.family, FLASH_SPLIT);
    assert_int_equal(choice.lse_bytes, 2 * 8 * 4096 * 8);
}

static void test_empty(void **state)
{
    (void)state;
    attn_op_call c = call_of(1, 4, 0, 100, 64, 16);
    assert_int_equal(choice_of(&c, 1, 1).family, FLASH_NOTHING);
    c = call_of(1, 4, 10, 0, 64, 16);
    assert_int_equal(choice_of(&c, 1, 1).family, FLASH_GENERIC);
}

static void test_limits(void **state)
{
    (void)state;
    char text[256] = "";
    attn_error err = {sizeof err, sizeof text, text, 0};
    struct op_shape shape;
    flash_problem p;
    attn_op_call c = call_of(1, 1, 16, 16, 520, 16);
    assert_int_equal(op_call_check("test", &c, &shape, &err), ATTN_OK);
    assert_int_equal(flash_problem_of("test", &c, &shape, &p, &err), ATTN_UNSUPPORTED);
    assert_string_equal(text, "test: 520 head dimension, expected at most 512");
    c = call_of(1 << 12, 1 << 10, 1 << 16, 16, 8, 16);
    assert_int_equal(op_call_check("test", &c, &shape, &err), ATTN_OK);
    assert_int_equal(flash_problem_of("test", &c, &shape, &p, &err), ATTN_UNSUPPORTED);
    assert_non_null(strstr(text, "more than one grid of blocks"));
}

/* cuda_math has a block for each query, and one for each key of key_mass. */
static void test_grids_of_math(void **state)
{
    (void)state;
    char text[256] = "";
    attn_error err = {sizeof err, sizeof text, text, 0};
    struct op_shape shape;
    flash_problem p;
    attn_op_call c = call_of(1 << 16, 1, 16, 1 << 15, 8, 16);
    want_key_mass(&c);
    assert_int_equal(op_call_check("test", &c, &shape, &err), ATTN_OK);
    assert_int_equal(cuda_math_problem_of("test", &c, &shape, &p, &err), ATTN_UNSUPPORTED);
    assert_string_equal(text,
                        "test: 2147483648 keys for key_mass in all, expected at most 2147483647");
    c.key_mass.rank = 0;
    assert_int_equal(cuda_math_problem_of("test", &c, &shape, &p, &err), ATTN_OK);
    c = call_of(1 << 16, 1, 1 << 15, 16, 8, 16);
    assert_int_equal(op_call_check("test", &c, &shape, &err), ATTN_OK);
    assert_int_equal(cuda_math_problem_of("test", &c, &shape, &p, &err), ATTN_UNSUPPORTED);
    assert_string_equal(text, "test: 2147483648 queries in all, expected at most 2147483647");
    c = call_of((1 << 16) - 1, 1, 1 << 15, 1 << 15, 8, 16);
    want_key_mass(&c);
    assert_int_equal(op_call_check("test", &c, &shape, &err), ATTN_OK);
    assert_int_equal(cuda_math_problem_of("test", &c, &shape, &p, &err), ATTN_OK);
}

/* A plugin for NVIDIA GPUs loads anywhere; create works or says why it does not. */
static void refuses_politely(const char *name)
{
    char path[4096], text[512] = "";
    attn_error err = {sizeof err, sizeof text, text, 0};
    const attn_host host = {.size = sizeof host, .max_threads = 1};
    const attn_device cpu = {.type = ATTN_DEVICE_CPU, .runtime = "cpu"},
                      cuda = {.type = ATTN_DEVICE_CUDA, .runtime = "cuda"};
    const attn_param param = {.name = "colour", .kind = ATTN_PARAM_INT};
    attn_op *op = NULL;
    (void)snprintf(path, sizeof path, "%s/%s.so", plugin_folder, name);
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle)
        fail_msg("%s", dlerror());
    const attn_op_api *api = dlsym(handle, "attn_op_v1");
    assert_non_null(api);
    assert_int_equal(api->head.abi, ATTN_ABI);
    assert_int_equal(api->create(&host, &cpu, NULL, 0, &op, &err), ATTN_UNSUPPORTED);
    assert_non_null(strstr(text, "expected 2 (CUDA)"));
    assert_int_equal(api->create(&host, &cuda, &param, 1, &op, &err), ATTN_INVALID);
    assert_non_null(strstr(text, "colour"));
    assert_null(op);
    const attn_status status = api->create(&host, &cuda, NULL, 0, &op, &err);
    if (status == ATTN_OK) {
        api->destroy(op);
    } else {
        assert_int_equal(status, ATTN_UNSUPPORTED);
        assert_true(strstr(text, "CUDA") || strstr(text, "cuDNN"));
        assert_null(op);
    }
    assert_non_null(api->query("attn.memory/1"));
    assert_null(api->query("attn.nothing/1"));
    api->destroy(NULL);
    api->release(NULL);
}

static void test_plugins_without_device(void **state)
{
    (void)state;
    if (!plugin_folder) {
        print_message("SKIP test_plugins_without_device: the CUDA plugins are not built\n");
        skip();
    }
    refuses_politely("cuda_flash");
    refuses_politely("cuda_math");
    refuses_politely("cudnn");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_families),
        cmocka_unit_test(test_tall_tiles),
        cmocka_unit_test(test_pairs),
        cmocka_unit_test(test_generic_reasons),
        cmocka_unit_test(test_bands),
        cmocka_unit_test(test_fp32),
        cmocka_unit_test(test_fp32_scratch),
        cmocka_unit_test(test_fp32_key_mass),
        cmocka_unit_test(test_key_mass_and_scratch),
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_grids_of_math),
        cmocka_unit_test(test_plugins_without_device),
    };
    plugin_folder = argc > 1 ? argv[1] : NULL;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
