/* What the op refuses, with which status and words, and that what it takes keeps CANN's protocol.
 */
#include "fakecann.h"
#include "fixture.h"
#include "problems.h"
#include "table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef void edit(attn_op_call *c);

static void fp32(attn_op_call *c)
{
    c->q.bits = c->k.bits = c->v.bits = c->out.bits = 32;
}
static void cpu(attn_op_call *c)
{
    c->q.device_type = c->k.device_type = c->v.device_type = c->out.device_type = ATTN_DEVICE_CPU;
}
static void key_mass(attn_op_call *c)
{
    c->key_mass = (attn_tensor){.shape = {1, 13},
                                .stride = {13, 1},
                                .device_type = 12,
                                .code = ATTN_CODE_FLOAT,
                                .bits = 32,
                                .lanes = 1,
                                .rank = 2};
}
static void probs(attn_op_call *c)
{
    c->probs = (attn_tensor){.shape = {1, 2, 9, 13},
                             .stride = {234, 117, 13, 1},
                             .device_type = 12,
                             .code = ATTN_CODE_FLOAT,
                             .bits = 32,
                             .lanes = 1,
                             .rank = 4};
}
static void bias_of(attn_op_call *c, int bits)
{
    c->bias = (attn_tensor){.shape = {1, 2, 9, 13},
                            .stride = {234, 117, 13, 1},
                            .device_type = 12,
                            .code = ATTN_CODE_FLOAT,
                            .bits = (uint8_t)bits,
                            .lanes = 1,
                            .rank = 4};
}
static void fp32_bias(attn_op_call *c)
{
    bias_of(c, 32);
}
static void half_bias(attn_op_call *c)
{
    bias_of(c, 16);
}
static void mask(attn_op_call *c)
{
    bias_of(c, 8);
    c->mask = c->bias;
    c->mask.code = ATTN_CODE_UINT;
    c->bias.rank = 0;
}
static void band(attn_op_call *c)
{
    c->flags = ATTN_CALL_BAND;
    c->band_lo = -2;
    c->band_hi = 2;
}
static void mask_and_band(attn_op_call *c)
{
    mask(c);
    band(c);
}
static void empty_band(attn_op_call *c)
{
    band(c);
    c->band_lo = 3;
}
static void backwards(attn_op_call *c)
{
    c->k.stride[2] = -c->k.stride[2];
}
static void dims(attn_op_call *c, int64_t d)
{
    c->q.shape[3] = c->k.shape[3] = c->v.shape[3] = c->out.shape[3] = d;
}
static void dim_769(attn_op_call *c)
{
    dims(c, 769);
}
static void dim_0(attn_op_call *c)
{
    dims(c, 0);
}
static void wide_values(attn_op_call *c)
{
    c->v.shape[3] = c->out.shape[3] = 25;
}
static void heads_257(attn_op_call *c)
{
    c->q.shape[1] = c->k.shape[1] = c->v.shape[1] = c->out.shape[1] = 257;
}
static void long_keys(attn_op_call *c)
{
    c->k.shape[2] = c->v.shape[2] = (1 << 20) + 1;
}
static void no_keys(attn_op_call *c)
{
    c->k.shape[2] = c->v.shape[2] = 0;
}
static void wrong_shape(attn_op_call *c)
{
    c->k.shape[3] = 23;
}
static void unknown_flag(attn_op_call *c)
{
    c->flags = 1u << 20;
}
static void lse(attn_op_call *c)
{
    c->lse = (attn_tensor){.shape = {1, 2, 9},
                           .stride = {18, 9, 1},
                           .device_type = 12,
                           .code = ATTN_CODE_FLOAT,
                           .bits = 32,
                           .lanes = 1,
                           .rank = 3};
}
static void lse_of_hidden_rows(attn_op_call *c)
{
    lse(c);
    band(c);
    c->band_hi = -3;
    c->band_lo = INT64_MIN;
}

struct refusal {
    edit *change;
    attn_status status;
    const char *words;
};

static const struct refusal always[] = {
    {fp32, ATTN_UNSUPPORTED, "float16 or bfloat16"},
    {cpu, ATTN_UNSUPPORTED, "CANN"},
    {key_mass, ATTN_UNSUPPORTED, "key_mass"},
    {probs, ATTN_UNSUPPORTED, "probs"},
    {fp32_bias, ATTN_UNSUPPORTED, "bias"},
    {mask_and_band, ATTN_UNSUPPORTED, "band"},
    {empty_band, ATTN_UNSUPPORTED, "hides every key"},
    {backwards, ATTN_UNSUPPORTED, "stride 2 of k"},
    {dim_769, ATTN_UNSUPPORTED, "769, expected 1 to 768"},
    {dim_0, ATTN_UNSUPPORTED, "head dimension is 0"},
    {wide_values, ATTN_UNSUPPORTED, "25, expected 1 to 24"},
    {heads_257, ATTN_UNSUPPORTED, "257, expected 1 to 256"},
    {long_keys, ATTN_UNSUPPORTED, "1048577, expected 1 to 1048576"},
    {no_keys, ATTN_UNSUPPORTED, "keys' length is 0"},
    {wrong_shape, ATTN_INVALID, "expected 24"},
    {unknown_flag, ATTN_UNSUPPORTED, "flags"},
};

/* Without the small operators. */
static const struct refusal plain[] = {
    {half_bias, ATTN_UNSUPPORTED, "aclnnMuls"},
    {mask, ATTN_UNSUPPORTED, "aclnnLogicalNot"},
    {lse, ATTN_UNSUPPORTED, "aclnnLog"},
    {lse_of_hidden_rows, ATTN_UNSUPPORTED, "aclnnLog"},
};

static void refuse(struct npu *npu, const struct refusal *r)
{
    struct attention a;
    struct problem p = {.batch = 1, .heads = 2, .nq = 9, .nk = 13, .d = 24};
    attn_op_plan *plan = NULL;
    uint64_t scratch = 0, before = fakecann_calls(NULL);
    attention_make(&a, &p);
    r->change(&a.call);
    npu->text[0] = '\0';
    assert_int_equal(npu->api->supports(npu->op, &a.call, &npu->err), r->status);
    if (!strstr(npu->text, r->words))
        fail_msg("\"%s\" does not say \"%s\"", npu->text, r->words);
    assert_int_equal(npu->api->prepare(npu->op, &a.call, &plan, &scratch, &npu->err), r->status);
    assert_null(plan);
    assert_int_equal(npu->api->supports(npu->op, &a.call, NULL), r->status);
    assert_int_equal(fakecann_calls(NULL), before); /* nothing of CANN was asked */
    attention_free(&a);
}

static void test_always(void **state)
{
    for (size_t i = 0; i < sizeof always / sizeof *always; i++)
        refuse(*state, &always[i]);
}

static void test_plain(void **state)
{
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        refuse(*state, &plain[i]);
}

/* Nothing to do is ATTN_OK, and nothing of CANN. */
static void test_nothing(void **state)
{
    struct npu *npu = *state;
    struct attention a;
    struct problem p = {.batch = 1, .heads = 2, .nq = 0, .nk = 13, .d = 24, .lse = 1};
    attn_op_plan *plan = NULL;
    uint64_t scratch = 99, before = fakecann_calls(NULL);
    attention_make(&a, &p);
    a.call.k.data = a.call.v.data = &p;
    if (getenv("NPU_PLAIN"))
        a.call.lse.rank = 0;
    assert_int_equal(npu->api->prepare(npu->op, &a.call, &plan, &scratch, &npu->err), ATTN_OK);
    assert_int_equal(scratch, 0);
    assert_int_equal(npu->api->run(plan, &a.call, &npu->err), ATTN_OK);
    npu->api->release(plan);
    assert_int_equal(fakecann_calls(NULL), before);
    attention_free(&a);
}

static void test_create(void **state)
{
    struct npu *npu = *state;
    attn_op *op = NULL;
    attn_param param = {.name = "speed", .kind = ATTN_PARAM_INT};
    const attn_device cuda = {ATTN_DEVICE_CUDA, 0, "cuda"}, other = {ATTN_DEVICE_EXT, 0, "other"};
    const attn_device far = {ATTN_DEVICE_EXT, 5, "cann"}, near = {ATTN_DEVICE_EXT, 0, "cann"};
    const attn_device any = {ATTN_DEVICE_EXT, 0, ""};
    __typeof__(npu->api->create) create = npu->api->create;
    fakecann_live_counts before = fakecann_live();
    assert_int_equal(create(&npu->host, &cuda, NULL, 0, &op, &npu->err), ATTN_UNSUPPORTED);
    assert_int_equal(create(&npu->host, &other, NULL, 0, &op, &npu->err), ATTN_UNSUPPORTED);
    assert_int_equal(create(&npu->host, &far, NULL, 0, &op, &npu->err), ATTN_UNSUPPORTED);
    assert_non_null(strstr(npu->text, "107001"));
    assert_int_equal(npu->err.vendor_code, 107001);
    assert_int_equal(create(&npu->host, &near, &param, 1, &op, &npu->err), ATTN_INVALID);
    assert_non_null(strstr(npu->text, "speed"));
    assert_int_equal(create(NULL, &near, NULL, 0, &op, &npu->err), ATTN_INVALID);
    assert_null(op);
    fakecann_live_counts after = fakecann_live();
    assert_memory_equal(&before, &after, sizeof before);
    assert_int_equal(create(&npu->host, &any, NULL, 0, &op, &npu->err), ATTN_OK);
    npu->api->destroy(op);
    npu->api->destroy(NULL);
}

/* A caller's thread is left on the device that it was on. */
static void test_context(void **state)
{
    struct npu *npu = *state;
    struct attention a;
    aclrtContext mine = NULL, now = NULL;
    attention_make(&a, &problems[0]);
    assert_int_equal(RUNTIME(aclrtSetDevice)(1), 0);
    assert_int_equal(RUNTIME(aclrtGetCurrentContext)(&mine), 0);
    assert_int_equal(attention_do(npu, &a, NULL), ATTN_OK);
    assert_true(attention_error(&a) <= attention_bound(&a));
    assert_int_equal(RUNTIME(aclrtGetCurrentContext)(&now), 0);
    assert_ptr_equal(now, mine);
    attn_op *other = npu->op;
    assert_int_equal(npu_create(npu), ATTN_OK);
    assert_int_equal(RUNTIME(aclrtGetCurrentContext)(&now), 0);
    assert_ptr_equal(now, mine);
    npu_destroy(npu);
    assert_int_equal(RUNTIME(aclrtGetCurrentContext)(&now), 0);
    assert_ptr_equal(now, mine);
    npu->op = other;
    assert_int_equal(RUNTIME(aclrtResetDevice)(1), 0);
    attention_free(&a);
}

/* run queues: nothing waits, allocates or copies, and the result is not there before. */
static void test_run_waits_for_nothing(void **state)
{
    static const char *const waits[] = {"aclrtSynchronizeStream", "aclrtMalloc", "aclrtFree",
                                        "aclrtMemcpy"};
    struct npu *npu = *state;
    for (int i = 0; i < PROBLEMS; i++) {
        struct attention a;
        uint64_t before = 0, after = 0;
        if (problems[i].nk > 1000)
            continue;
        attention_make(&a, &problems[i]);
        assert_int_equal(attention_prepare(npu, &a), ATTN_OK);
        assert_int_equal(attention_in(npu, &a, NULL), ATTN_OK);
        for (int k = 0; k < 4; k++)
            before += fakecann_calls(waits[k]);
        assert_int_equal(attention_run(npu, &a, NULL), ATTN_OK);
        for (int k = 0; k < 4; k++)
            after += fakecann_calls(waits[k]);
        assert_int_equal(before, after);
        fakecann_live_counts live = fakecann_live();
        assert_int_equal(live.tensors + live.scalars, 0);
        assert_true(live.executors > 0); /* queued, each with its own */
        attention_undo(npu, &a);
        assert_int_equal(fakecann_live().executors, 0);
        attention_free(&a);
    }
}

static int set_up(void **state)
{
    static struct npu npu;
    npu_begin(&npu);
    *state = &npu;
    return npu_create(&npu) != ATTN_OK;
}

/* All is given back, no rule was broken, and nobody finalized for everybody. */
static int tear_down(void **state)
{
    npu_destroy(*state);
    fakecann_live_counts l = fakecann_live();
    print_message("violations %llu %s\n", (unsigned long long)fakecann_violations(),
                  fakecann_violation());
    return fakecann_violations() != 0 || fakecann_calls("aclFinalize") != 0 ||
           l.allocations + l.tensors + l.scalars + l.executors + l.devices + l.inits != 0;
}

int main(void)
{
    const struct CMUnitTest full[] = {
        cmocka_unit_test(test_always),
        cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_create),
        cmocka_unit_test(test_context),
        cmocka_unit_test(test_run_waits_for_nothing),
    };
    const struct CMUnitTest small[] = {
        cmocka_unit_test(test_always),
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_nothing),
    };
    return getenv("NPU_PLAIN") ? cmocka_run_group_tests(small, set_up, tear_down)
                               : cmocka_run_group_tests(full, set_up, tear_down);
}
