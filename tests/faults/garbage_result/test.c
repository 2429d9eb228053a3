/* Results that the contract does not allow become ATTN_INTERNAL, the plugin is retired and its file
 * says why; refusals without a text get one, a text without an end is ended. */
#include "fault.h"

static attn_status open_bad(const char *what, attn_host_op **op, attn_error *err)
{
    const attn_device cpu = {ATTN_DEVICE_CPU, 0, "cpu"};
    const attn_param param = {.name = "break", .kind = ATTN_PARAM_TEXT, .text = what};
    fault_registry(0);
    return attn_host_op_open(the_fault.registry, BAD_ID, &cpu, NULL, &param, 1, op, err);
}

/* Lives through it all as far as it goes; returns the first failure. */
static attn_status live(const char *what, attn_error *err)
{
    static attention a;
    static double scratch[64];
    attn_op_call call = attention_call(&a);
    attn_host_op_plan *plan = NULL;
    attn_host_op *op = NULL;
    uint64_t bytes = 0;
    attention_fill(&a, 1);
    attn_status status = open_bad(what, &op, err);
    if (status == ATTN_OK) {
        status = attn_host_op_supports(op, &call, err);
    }
    if (status == ATTN_OK) {
        status = attn_host_op_prepare(op, &call, &plan, &bytes, err);
    }
    if (status == ATTN_OK) {
        call.scratch = scratch;
        call.scratch_bytes = bytes;
        status = attn_host_op_run(plan, &call, err);
        attn_host_op_release(plan);
    }
    assert_int_equal(attn_host_op_close(op), ATTN_OK);
    return status;
}

static void expect_retired(const char *what, const char *words)
{
    ATTN_ERROR_ON(err, 512);
    attn_status status = live(what, &err);
    if (status != ATTN_INTERNAL || !strstr(err.text, words)) {
        fail_msg("%s: status %d (%s), expected (%s)", what, status, err.text, words);
    }
    fault_expect("bad.so", ATTN_VERDICT_RETIRED, words);
    fault_expect_refused(BAD_ID, ATTN_INTERNAL, "was retired");
    assert_int_equal(attn_registry_refresh(the_fault.registry, NULL), ATTN_OK);
    fault_expect("bad.so", ATTN_VERDICT_RETIRED, words); /* the same file stays out */
    fault_expect_good();
}

static void test(void **state)
{
    (void)state;
    ATTN_ERROR_ON(err, 512);
    assert_int_equal(live("", &err), ATTN_OK);
    expect_retired("create", "create returned status 77");
    expect_retired("no op", "create returned ok and no op");
    expect_retired("supports", "supports returned status -3");
    expect_retired("no plan", "prepare returned ok and no plan");
    expect_retired("scratch", "prepare asks for 18446744073709551607 bytes of scratch");
    expect_retired("run", "run returned status 1000");
}

static void test_texts(void **state)
{
    char room[64];
    attn_error err = {sizeof err, 16, room, 0};
    (void)state;
    memset(room, 'y', sizeof room);
    assert_int_equal(live("text", &err), ATTN_UNSUPPORTED);
    assert_int_equal(strlen(room), 15);
    assert_int_equal(room[16], 'y');
    ATTN_ERROR_ON(long_err, 512);
    assert_int_equal(live("no text", &long_err), ATTN_UNSUPPORTED);
    assert_non_null(strstr(long_err.text, "supports returned \"unsupported\" and gave no reason"));
}

static void test_device(void **state)
{
    ATTN_ERROR_ON(err, 512);
    attention a;
    attn_op_call call = attention_call(&a);
    attn_host_op *op = NULL;
    attn_host_op_plan *plan = NULL;
    uint64_t bytes = 0;
    (void)state;
    assert_int_equal(open_bad("device", &op, &err), ATTN_OK);
    assert_int_equal(attn_host_op_prepare(op, &call, &plan, &bytes, &err), ATTN_OK);
    assert_int_equal(attn_host_op_run(plan, &call, &err), ATTN_DEVICE);
    assert_int_equal(attn_host_op_run(plan, &call, &err), ATTN_DEVICE);
    assert_non_null(strstr(err.text, "its device failed before"));
    assert_int_equal(attn_host_op_supports(op, &call, &err), ATTN_DEVICE);
    attn_host_op_release(plan);
    assert_int_equal(attn_host_op_close(op), ATTN_OK);
    fault_expect("bad.so", ATTN_VERDICT_OK, ""); /* its device's fault, not its own */
}

FAULT_MAIN(FAULT_TEST(test), FAULT_TEST(test_texts), FAULT_TEST(test_device))
