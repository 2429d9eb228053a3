/* The CPU's ops: math against stored float64 results, every variant of memory_efficient and sliced
 * against math, and what each refuses.
 *
 *   test_ops FOLDER GOLDENS          the tests, on the plugins of FOLDER
 *   test_ops FOLDER GOLDENS --bench  verified timings instead (bench.c) */
#include "bench.h"
#include "golden.h"
#include "harness.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const double bounds[] = {2e-6, 1e-3, 8e-3};
static const char *golden_folder;

static void describe(const struct config *c, char *text, size_t capacity)
{
    (void)snprintf(text, capacity,
                   "B%lld H%lld/%lld %lldx%lld D%lld/%lld %s layout %d bias %d(%s) mask %d band %d "
                   "[%lld, %lld] scale %g",
                   (long long)c->batch, (long long)c->heads, (long long)c->kv_heads,
                   (long long)c->nq, (long long)c->nk, (long long)c->d, (long long)c->dv,
                   dtype_names[c->dtype], c->layout, c->bias, dtype_names[c->bias_dtype], c->mask,
                   c->band, (long long)c->lo, (long long)c->hi, (double)c->scale);
}

static void expect_near(const char *what, const char *who, const struct config *c,
                        const attn_tensor *got, const attn_tensor *expected)
{
    char text[256];
    if (got->rank == 0)
        return;
    double bound = bounds[c->dtype];
    struct distance d = tensor_distance(got, expected);
    if (!d.wrong && d.relative <= bound)
        return;
    describe(c, text, sizeof text);
    fail_msg("%s %s: off by %.3g of at most %.3g%s: %s", who, what, d.relative, bound,
             d.wrong ? ", infinities differ" : "", text);
}

static void run_or_fail(struct data *data, const struct plugin *plugin)
{
    char text[256] = "", config[256];
    if (data_run(data, plugin, text, sizeof text) == ATTN_OK)
        return;
    describe(&data->config, config, sizeof config);
    fail_msg("%s: %s: %s", plugin->api->head.id, text, config);
}

/* One call against math on the same values in fp32. */
static void compare(const struct plugin *plugin, const struct plugin *math, const char *who,
                    const struct config *config, uint64_t seed)
{
    struct data data, wide;
    data_make(&data, config, seed);
    data_widen(&wide, &data);
    run_or_fail(&data, plugin);
    run_or_fail(&wide, math);
    expect_near("out", who, config, &data.call.out, &wide.call.out);
    expect_near("lse", who, config, &data.call.lse, &wide.call.lse);
    expect_near("key_mass", who, config, &data.call.key_mass, &wide.call.key_mass);
    expect_near("probs", who, config, &data.call.probs, &wide.call.probs);
    data_free(&data);
    data_free(&wide);
}

/* ---- configurations ---- */

#define BASE                                                                                       \
    .batch = 1, .heads = 2, .kv_heads = 2, .nq = 70, .nk = 150, .d = 40, .dv = 40, .lse = 1,       \
    .mass = 1

static const struct config edges[] = {
    {BASE},
    {BASE, .nq = 1, .nk = 1, .d = 1, .dv = 1},
    {BASE, .nq = 0},
    {BASE, .nk = 0},
    {BASE, .batch = 0},
    {BASE, .heads = 0, .kv_heads = 0},
    {BASE, .d = 0},
    {BASE, .dv = 0},
    {BASE, .nq = 48, .nk = 128, .d = 8, .dv = 8},
    {BASE, .nq = 49, .nk = 129, .d = 9, .dv = 7},
    {BASE, .nq = 97, .nk = 1100, .d = 33, .dv = 65},
    {BASE, .nq = 800, .nk = 77},
    {BASE, .nq = 33, .nk = 260, .d = 160, .dv = 160},
    {BASE, .nq = 50, .nk = 140, .d = 512, .dv = 512},
    {BASE, .heads = 6, .kv_heads = 2},
    {BASE, .heads = 6, .kv_heads = 1, .batch = 2},
    {BASE, .layout = TOKENS_FIRST},
    {BASE, .layout = SCATTERED},
    {BASE, .layout = BACKWARDS},
    {BASE, .bias = FULL_BIAS},
    {BASE, .bias = KEY_BIAS, .batch = 2},
    {BASE, .bias = QUERY_BIAS},
    {BASE, .bias = HUGE_BIAS},
    {BASE, .bias = INFINITE_BIAS},
    {BASE, .bias = FULL_BIAS, .bias_dtype = F16},
    {BASE, .bias = INFINITE_BIAS, .bias_dtype = BF16},
    {BASE, .mask = FULL_MASK},
    {BASE, .mask = KEY_MASK, .batch = 2},
    {BASE, .mask = NO_KEYS},
    {BASE, .mask = FULL_MASK, .bias = INFINITE_BIAS, .band = 1, .lo = -40, .hi = 30},
    {BASE, .band = 1, .lo = INT64_MIN, .hi = 0},
    {BASE, .band = 1, .lo = INT64_MIN, .hi = 80},
    {BASE, .band = 1, .lo = -3, .hi = 3},
    {BASE, .band = 1, .lo = 0, .hi = 0},
    {BASE, .band = 1, .lo = 100, .hi = INT64_MAX},
    {BASE, .band = 1, .lo = 200, .hi = 300},
    {BASE, .band = 1, .lo = -300, .hi = -200},
    {BASE, .band = 1, .lo = 5, .hi = 4},
    {BASE, .nq = 600, .nk = 600, .band = 1, .lo = INT64_MIN, .hi = 0},
    {BASE, .nq = 600, .nk = 600, .band = 1, .lo = -100, .hi = 50},
    {BASE, .scale = 1.0f},
    {BASE, .scale = 0.01f},
    {BASE, .scale = -0.2f},
    {BASE, .lse = 0, .mass = 0},
    {BASE, .lse = 0},
    {BASE, .dtype = F16},
    {BASE, .dtype = BF16},
    {BASE, .dtype = F16, .layout = TOKENS_FIRST, .nq = 33, .nk = 300, .d = 64, .dv = 64},
    {BASE, .dtype = BF16, .layout = SCATTERED, .d = 17, .dv = 23},
    /* Whole tiles of keys, where AMX's sums start at an fp32 bias. */
    {BASE, .nq = 100, .nk = 320, .bias = FULL_BIAS},
    {BASE, .nq = 100, .nk = 320, .bias = HUGE_BIAS},
    {BASE, .nq = 100, .nk = 320, .bias = INFINITE_BIAS, .mask = FULL_MASK},
    {BASE, .nq = 100, .nk = 320, .bias = QUERY_BIAS, .band = 1, .lo = -90, .hi = 30},
    {BASE, .nq = 64, .nk = 512, .bias = KEY_BIAS, .batch = 2, .layout = TOKENS_FIRST},
    {BASE, .nq = 100, .nk = 320, .bias = FULL_BIAS, .dtype = F16, .bias_dtype = F16},
    {BASE, .nq = 100, .nk = 320, .bias = INFINITE_BIAS, .dtype = BF16, .bias_dtype = F32},
    {BASE, .nq = 40, .nk = 300, .d = 512, .dv = 500, .dtype = BF16},
    {BASE, .nq = 2500, .nk = 288, .bias = FULL_BIAS, .heads = 1, .kv_heads = 1},
};

static int64_t below(uint64_t *state, int64_t n)
{
    return (int64_t)(random_bits(state) % (uint64_t)n);
}

/* Anything goes: sizes about the tiles' edges, every option. */
static struct config random_config(uint64_t *state)
{
    static const int64_t dims[] = {1, 7, 8, 17, 24, 40, 64, 72, 80, 96, 100, 160};
    static const int64_t groups[] = {1, 1, 2, 3};
    struct config c = {.batch = 1 + below(state, 2), .kv_heads = 1 + below(state, 2)};
    c.heads = c.kv_heads * groups[below(state, 4)];
    c.nq = 1 + below(state, 160);
    c.nk = 1 + below(state, below(state, 4) ? 150 : 700);
    c.d = dims[below(state, 12)];
    c.dv = below(state, 3) ? c.d : dims[below(state, 12)];
    c.dtype = below(state, 2) ? F32 : (enum dtype)below(state, 3);
    c.bias_dtype = (enum dtype)below(state, 3);
    c.layout = (enum layout)below(state, LAYOUTS);
    c.bias = below(state, 2) ? NO_BIAS : (enum bias)below(state, BIASES);
    c.mask = below(state, 2) ? NO_MASK : (enum mask)below(state, MASKS);
    c.band = below(state, 3) == 0;
    c.lo = below(state, 3) ? below(state, 200) - 150 : INT64_MIN;
    c.hi = below(state, 3) ? below(state, 200) - 50 : INT64_MAX;
    c.scale = below(state, 3) ? 0.0f : (float)(0.05 + random_unit(state) * 0.2);
    c.lse = below(state, 2) == 0;
    c.mass = below(state, 2) == 0;
    return c;
}

static void check_variant(const char *name, const char *cpu, int rounds)
{
    struct plugin plugin = plugin_open(name, cpu, 3), math = plugin_open("math", NULL, 2);
    const char *who = cpu ? cpu : name;
    uint64_t state = 7;
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++)
        compare(&plugin, &math, who, &edges[i], 100 + i);
    for (int i = 0; i < rounds; i++) {
        struct config c = random_config(&state);
        compare(&plugin, &math, who, &c, 1000 + (uint64_t)i);
    }
    plugin_close(&plugin);
    plugin_close(&math);
}

/* ---- tests ---- */

static void check_goldens(const struct plugin *plugin)
{
    DIR *folder = opendir(golden_folder);
    int count = 0;
    assert_non_null(folder);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char path[4200];
        struct golden golden;
        if (strncmp(entry->d_name, "attend_", 7) != 0)
            continue;
        (void)snprintf(path, sizeof path, "%s/%s", golden_folder, entry->d_name);
        golden_open(&golden, path);
        run_or_fail(&golden.data, plugin);
        const struct config *c = &golden.data.config;
        expect_near("out", entry->d_name, c, &golden.data.call.out, &golden.out);
        expect_near("lse", entry->d_name, c, &golden.data.call.lse, &golden.lse);
        expect_near("key_mass", entry->d_name, c, &golden.data.call.key_mass, &golden.key_mass);
        golden_close(&golden);
        count++;
    }
    (void)closedir(folder);
    assert_in_range(count, 30, 1000);
}

static void test_math_goldens(void **state)
{
    (void)state;
    struct plugin plugin = plugin_open("math", NULL, 2);
    check_goldens(&plugin);
    plugin_close(&plugin);
}

/* probs against what they must add up to: out = probs v, and lse from the same rows is golden. */
static void test_math_probs(void **state)
{
    (void)state;
    struct config c = {BASE, .mask = FULL_MASK, .bias = FULL_BIAS, .probs = 1};
    struct plugin plugin = plugin_open("math", NULL, 2);
    struct data data;
    data_make(&data, &c, 5);
    run_or_fail(&data, &plugin);
    for (int64_t h = 0; h < c.heads; h++)
        for (int64_t i = 0; i < c.nq; i++) {
            double sum = 0.0, first = 0.0;
            for (int64_t j = 0; j < c.nk; j++) {
                double p = tensor_get(&data.call.probs, (int64_t[4]){0, h, i, j});
                sum += p;
                first += p * tensor_get(&data.call.v, (int64_t[4]){0, h, j, 0});
            }
            double out = tensor_get(&data.call.out, (int64_t[4]){0, h, i, 0});
            assert_true(sum > 0.99999 ? sum < 1.00001 : sum == 0.0 && i == c.nq / 2);
            assert_true(first - out < 1e-5 && out - first < 1e-5);
        }
    data_free(&data);
    plugin_close(&plugin);
}

static void test_goldens_variant(void **state)
{
    const char *cpu = *state;
    struct plugin plugin = plugin_open("memory_efficient", cpu, 2);
    check_goldens(&plugin);
    plugin_close(&plugin);
}

static void test_variant(void **state)
{
    check_variant("memory_efficient", *state, 60);
}

static void test_sliced(void **state)
{
    (void)state;
    check_variant("sliced", NULL, 20);
}

/* The same bits whatever the number of threads, and from run to run. */
static void test_same_bits(void **state)
{
    static const struct config configs[] = {
        {BASE, .nq = 500, .nk = 700, .heads = 3, .kv_heads = 3},
        {BASE, .nq = 900, .nk = 77, .dtype = F16},
        {BASE, .nq = 300, .nk = 1300, .band = 1, .lo = -200, .hi = 900},
    };
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        struct data first;
        struct plugin one = plugin_open("memory_efficient", *state, 1);
        data_make(&first, &configs[i], 11);
        run_or_fail(&first, &one);
        for (uint32_t threads = 1; threads <= 5; threads += 2) {
            struct data again;
            struct plugin plugin = plugin_open("memory_efficient", *state, threads);
            data_make(&again, &configs[i], 11);
            run_or_fail(&again, &plugin);
            for (int b = 0; b < first.n_buffers; b++)
                assert_memory_equal(first.buffers[b].base, again.buffers[b].base,
                                    first.buffers[b].bytes);
            data_free(&again);
            plugin_close(&plugin);
        }
        data_free(&first);
        plugin_close(&one);
    }
}

/* A NaN in a query spoils its row alone; in a key, the rows that see it. */
static void test_nan(void **state)
{
    struct config c = {BASE};
    struct data data;
    struct plugin plugin = plugin_open("memory_efficient", *state, 2);
    data_make(&data, &c, 3);
    tensor_set(&data.call.q, (int64_t[4]){0, 1, 5, 3}, (double)NAN);
    run_or_fail(&data, &plugin);
    for (int64_t i = 0; i < c.nq; i++) {
        double out = tensor_get(&data.call.out, (int64_t[4]){0, 1, i, 0});
        double lse = tensor_get(&data.call.lse, (int64_t[4]){0, 1, i, 0});
        assert_int_equal(isnan(out), i == 5);
        assert_int_equal(isnan(lse), i == 5);
    }
    tensor_set(&data.call.q, (int64_t[4]){0, 1, 5, 3}, 0.5);
    tensor_set(&data.call.v, (int64_t[4]){0, 0, 149, 2}, (double)INFINITY);
    run_or_fail(&data, &plugin);
    for (int64_t i = 0; i < c.nq; i++) {
        assert_true(tensor_get(&data.call.out, (int64_t[4]){0, 0, i, 2}) == (double)INFINITY);
        assert_true(isfinite(tensor_get(&data.call.out, (int64_t[4]){0, 0, i, 1})));
        assert_true(isfinite(tensor_get(&data.call.out, (int64_t[4]){0, 1, i, 2})));
    }
    data_free(&data);
    plugin_close(&plugin);
}

static void expect_refusal(const char *name, const attn_op_call *call, attn_status expected,
                           const char *word)
{
    char text[256] = "";
    attn_error err = {sizeof err, sizeof text, text, 0};
    attn_op_plan *plan = NULL;
    uint64_t scratch = 0;
    struct plugin plugin = plugin_open(name, NULL, 1);
    assert_int_equal(plugin.api->prepare(plugin.op, call, &plan, &scratch, &err), expected);
    assert_int_equal(plugin.api->supports(plugin.op, call, NULL), expected);
    if (!strstr(text, word))
        fail_msg("%s says '%s', expected '%s' in it", name, text, word);
    plugin_close(&plugin);
}

/* As a caller may plan that has strides of 0 and no memory yet. */
static void call_resize(attn_op_call *c, int64_t batch, int64_t queries)
{
    attn_tensor *const all[] = {&c->q,    &c->k,   &c->v,        &c->out,  &c->bias,
                                &c->mask, &c->lse, &c->key_mass, &c->probs};
    attn_tensor *const by_query[] = {&c->q, &c->out, &c->bias, &c->mask, &c->lse, &c->probs};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        all[i]->shape[0] = batch;
    for (size_t i = 0; i < sizeof by_query / sizeof *by_query; i++)
        by_query[i]->shape[2] = queries;
}

static void call_type(attn_op_call *c, uint8_t code, uint8_t bits)
{
    attn_tensor *const four[] = {&c->q, &c->k, &c->v, &c->out};
    for (size_t i = 0; i < 4; i++)
        four[i]->code = code, four[i]->bits = bits;
}

static void test_refusals(void **state)
{
    static const char *const names[] = {"math", "memory_efficient", "sliced"};
    struct config c = {BASE, .bias = FULL_BIAS, .mask = FULL_MASK};
    struct data data;
    (void)state;
    data_make(&data, &c, 1);
    for (int i = 0; i < 3; i++) {
        attn_op_call call = data.call;
        attn_ext ext = {NULL, "someone.thing/1", sizeof ext, ATTN_EXT_REQUIRED};
        call.size = 8;
        expect_refusal(names[i], &call, ATTN_INVALID, "size is 8");
        call = data.call, call.flags = 64;
        expect_refusal(names[i], &call, ATTN_UNSUPPORTED, "0x40");
        call = data.call, call.ext = &ext;
        expect_refusal(names[i], &call, ATTN_UNSUPPORTED, "someone.thing/1");
        call = data.call, call.v.rank = 3;
        expect_refusal(names[i], &call, ATTN_INVALID, "v has rank 3");
        call = data.call, call.v.shape[2] = 9;
        expect_refusal(names[i], &call, ATTN_INVALID, "v has 9 in dimension 2");
        call = data.call, call.k.shape[1] = call.v.shape[1] = 3;
        expect_refusal(names[i], &call, ATTN_INVALID, "multiple");
        call = data.call, call.k.code = ATTN_CODE_INT;
        expect_refusal(names[i], &call, ATTN_INVALID, "k has type");
        call = data.call, call.v.code = ATTN_CODE_BFLOAT, call.v.bits = 16;
        expect_refusal(names[i], &call, ATTN_INVALID, "v has type");
        call = data.call, call.q.bits = 64;
        expect_refusal(names[i], &call, ATTN_INVALID, "k has type");
        call = data.call, call_type(&call, ATTN_CODE_INT, 32);
        expect_refusal(names[i], &call, ATTN_INVALID, "q has type");
        call = data.call, call_type(&call, ATTN_CODE_FLOAT, 64);
        expect_refusal(names[i], &call, ATTN_UNSUPPORTED, "q has type");
        call = data.call, call.bias.bits = 64;
        expect_refusal(names[i], &call, ATTN_UNSUPPORTED, "bias has type");
        call = data.call, call.bias.code = ATTN_CODE_UINT;
        expect_refusal(names[i], &call, ATTN_INVALID, "bias has type");
        call = data.call, call.bias.shape[3] = 1;
        expect_refusal(names[i], &call, ATTN_INVALID, "bias has 1 in dimension 3");
        call = data.call, call.mask.code = ATTN_CODE_FLOAT;
        expect_refusal(names[i], &call, ATTN_INVALID, "mask has type");
        call = data.call, call.lse.bits = 16;
        expect_refusal(names[i], &call, ATTN_INVALID, "lse has type");
        call = data.call, call.out.stride[1] = 0;
        expect_refusal(names[i], &call, ATTN_INVALID, "out has stride 0 in dimension 1");
        call = data.call, call.lse.stride[2] = 0;
        expect_refusal(names[i], &call, ATTN_INVALID, "lse has stride 0 in dimension 2");
        call = data.call, call.scale = NAN;
        expect_refusal(names[i], &call, ATTN_INVALID, "scale");
        call = data.call, call_resize(&call, INT64_C(1) << 41, 1);
        expect_refusal(names[i], &call, ATTN_UNSUPPORTED, "batch is 2199023255552, expected at");
        call = data.call, call_resize(&call, INT64_C(1) << 30, INT64_C(1) << 40);
        expect_refusal(names[i], &call, ATTN_UNSUPPORTED, "in a batch of 1073741824, expected");
    }
    attn_op_call call = data.call;
    call.probs = call.bias;
    expect_refusal("memory_efficient", &call, ATTN_UNSUPPORTED, "probs");
    data_free(&data);
}

/* What run itself refuses: missing data, too little scratch. */
static void test_run_refusals(void **state)
{
    static const char *const names[] = {"math", "memory_efficient", "sliced"};
    struct config c = {BASE};
    struct data data;
    (void)state;
    data_make(&data, &c, 1);
    for (int i = 0; i < 3; i++) {
        char text[256] = "";
        attn_error err = {sizeof err, sizeof text, text, 0};
        struct plugin plugin = plugin_open(names[i], NULL, 1);
        attn_op_plan *plan = NULL;
        uint64_t scratch = 0;
        attn_op_call call = data.call;
        assert_int_equal(plugin.api->prepare(plugin.op, &call, &plan, &scratch, &err), ATTN_OK);
        assert_int_equal(plugin.api->run(plan, &call, &err), ATTN_INVALID);
        assert_non_null(strstr(text, "scratch"));
        call.scratch = malloc(scratch);
        call.scratch_bytes = scratch;
        call.k.data = NULL;
        assert_int_equal(plugin.api->run(plan, &call, &err), ATTN_INVALID);
        assert_non_null(strstr(text, "k has no data"));
        free(call.scratch);
        plugin.api->release(plan);
        plugin_close(&plugin);
    }
    data_free(&data);
}

static void expect_create(const char *name, const attn_host *host, const attn_param *params,
                          uint32_t n, attn_status expected, const char *word)
{
    static const attn_device device = {ATTN_DEVICE_CPU, 0, "cpu"};
    char text[256] = "";
    attn_error err = {sizeof err, sizeof text, text, 0};
    attn_op *op = NULL;
    const attn_op_api *api = harness_api(name);
    assert_int_equal(api->create(host, &device, params, n, &op, &err), expected);
    if (!strstr(text, word))
        fail_msg("%s says '%s', expected '%s' in it", name, text, word);
    if (expected == ATTN_OK)
        api->destroy(op);
}

static void test_create(void **state)
{
    attn_host bare = *harness_host(1);
    attn_param size = {.name = "slice_size", .kind = ATTN_PARAM_TEXT, .text = "none"};
    attn_param other = {.name = "slices", .kind = ATTN_PARAM_INT, .i = 1};
    (void)state;
    bare.query = NULL;
    expect_create("sliced", &bare, NULL, 0, ATTN_UNSUPPORTED, "attn.attend/1");
    expect_create("sliced", harness_host(1), &size, 1, ATTN_INVALID, "'none'");
    size.text = "0";
    expect_create("sliced", harness_host(1), &size, 1, ATTN_INVALID, "'0'");
    size.text = "3";
    expect_create("sliced", harness_host(1), &size, 1, ATTN_OK, "");
    expect_create("sliced", harness_host(1), &other, 1, ATTN_INVALID, "slices");
    expect_create("math", harness_host(1), &other, 1, ATTN_INVALID, "slices");
    expect_create("memory_efficient", harness_host(1), &other, 1, ATTN_INVALID, "slices");
    setenv("ATTNPLUG_CPU", "sse9", 1);
    expect_create("memory_efficient", harness_host(1), NULL, 0, ATTN_INVALID, "sse9");
    unsetenv("ATTNPLUG_CPU");
}

/* Every slice size, over either op, with groups of heads: as without slices. */
static void test_slice_sizes(void **state)
{
    static const char *const sizes[] = {"1", "2", "3", "4", "5", "6", "9", "auto", "max"};
    static const char *const inner[] = {"math", "memory_efficient"};
    static const attn_device device = {ATTN_DEVICE_CPU, 0, "cpu"};
    struct plugin math = plugin_open("math", NULL, 2);
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes * 2; i++)
        for (int64_t kv_heads = 2; kv_heads <= 6; kv_heads += 4) {
            struct config c = {BASE,     .batch = 2, .heads = 6,        .kv_heads = kv_heads,
                               .nq = 20, .nk = 30,   .bias = FULL_BIAS, .mask = FULL_MASK};
            attn_param params[2] = {
                {.name = "slice_size", .kind = ATTN_PARAM_TEXT, .text = sizes[i / 2]},
                {.name = "op", .kind = ATTN_PARAM_TEXT, .text = inner[i % 2]}};
            struct plugin plugin = {.api = harness_api("sliced")};
            assert_int_equal(
                plugin.api->create(harness_host(2), &device, params, 2, &plugin.op, NULL), ATTN_OK);
            compare(&plugin, &math, sizes[i / 2], &c, 50 + i);
            plugin_close(&plugin);
        }
    plugin_close(&math);
}

static const char *const variants[] = {"c", "avx2", "avx512", "amx"};
#define N_VARIANTS (sizeof variants / sizeof *variants)

int main(int argc, char **argv)
{
    if (argc < 3) {
        (void)fprintf(stderr, "usage: %s FOLDER GOLDENS [--bench [ARGUMENTS]]\n", argv[0]);
        return 2;
    }
    harness_folder(argv[1]);
    golden_folder = argv[2];
    if (argc > 3 && strcmp(argv[3], "--bench") == 0)
        return bench_main(argc - 4, argv + 4);
    struct CMUnitTest tests[64] = {
        cmocka_unit_test(test_math_goldens), cmocka_unit_test(test_math_probs),
        cmocka_unit_test(test_sliced),       cmocka_unit_test(test_slice_sizes),
        cmocka_unit_test(test_refusals),     cmocka_unit_test(test_run_refusals),
        cmocka_unit_test(test_create),
    };
    static const struct {
        const char *name;
        CMUnitTestFunction function;
    } each[] = {{"goldens", test_goldens_variant},
                {"against math", test_variant},
                {"same bits", test_same_bits},
                {"nan", test_nan}};
    static char names[N_VARIANTS * 4][64];
    size_t n = 7;
    for (size_t v = 0; v < N_VARIANTS; v++)
        for (size_t t = 0; t < 4 && harness_variant(variants[v]); t++, n++) {
            (void)snprintf(names[v * 4 + t], sizeof names[0], "memory_efficient %s: %s",
                           variants[v], each[t].name);
            tests[n] = (struct CMUnitTest){names[v * 4 + t], each[t].function, NULL, NULL,
                                           (void *)(uintptr_t)variants[v]};
        }
    return _cmocka_run_group_tests("ops", tests, n, NULL, NULL);
}
