/* What a processor returns is checked where it comes in, and one that returns garbage is retired
 * with what it did; its objects are counted. */
#include "fault.h"

typedef struct {
    attn_host_processor *processor;
    attn_host_binding *binding;
    attn_host_layer_plan *plan;
    attn_layer layer;
    attn_layer_call call;
    attn_work work;
} session;

/* Everything up to run; stops where something is refused. */
static attn_status begin(session *s, const char *what, attn_error *err)
{
    const attn_device cpu = {ATTN_DEVICE_CPU, 0, "cpu"};
    const attn_param param = {"break", ATTN_PARAM_TEXT, 0, 0, 0, what, NULL};
    memset(s, 0, sizeof *s);
    s->layer.size = sizeof s->layer;
    s->call.size = sizeof s->call;
    s->work.size = sizeof s->work;
    s->work.err = err;
    s->call.work = &s->work;
    fault_registry(0);
    attn_status status = attn_host_processor_open(the_fault.registry, BAD_ID, &cpu, NULL, &param, 1,
                                                  &s->processor, err);
    if (status == ATTN_OK) {
        status =
            attn_host_processor_bind(s->processor, &s->layer, NULL, 0, &s->work, &s->binding, err);
    }
    if (status == ATTN_OK) {
        status = attn_host_processor_prepare(s->binding, &s->call, &s->plan);
    }
    return status;
}

static void end(session *s)
{
    attn_host_processor_release(s->plan);
    assert_int_equal(attn_host_processor_unbind(s->binding), ATTN_OK);
    assert_int_equal(attn_host_processor_close(s->processor), ATTN_OK);
}

static void expect_retired(const char *what, const char *words)
{
    ATTN_ERROR_ON(err, 512);
    session s;
    attn_status status = begin(&s, what, &err);
    if (status == ATTN_OK) {
        status = attn_host_processor_run(s.plan, &s.call);
    }
    end(&s);
    if (status != ATTN_INTERNAL || !strstr(err.text, words)) {
        fail_msg("%s: status %d (%s), expected (%s)", what, status, err.text, words);
    }
    fault_expect("bad.so", ATTN_VERDICT_RETIRED, words);
    fault_expect_good();
}

static void test(void **state)
{
    ATTN_ERROR_ON(err, 512);
    session s;
    (void)state;
    assert_int_equal(begin(&s, "", &err), ATTN_OK);
    assert_int_equal(attn_host_processor_run(s.plan, &s.call), ATTN_OK);
    end(&s);
    expect_retired("create", "create returned status 77");
    expect_retired("no processor", "create returned ok and no processor");
    expect_retired("bind", "bind returned status -3");
    expect_retired("no binding", "bind returned ok and no binding");
    expect_retired("prepare", "prepare returned status 1000");
    expect_retired("no plan", "prepare returned ok and no plan");
    expect_retired("arena", "prepare takes 18446744073709551607 bytes of the arena");
    expect_retired("run", "run returned status 1000");
}

static void test_text(void **state)
{
    char room[64];
    attn_error err = {sizeof err, 16, room, 0};
    session s;
    (void)state;
    memset(room, 'y', sizeof room);
    assert_int_equal(begin(&s, "text", &err), ATTN_UNSUPPORTED);
    assert_int_equal(strlen(room), 15);
    assert_int_equal(room[16], 'y');
    end(&s);
}

static void test_counted(void **state)
{
    ATTN_ERROR_ON(err, 512);
    session s;
    (void)state;
    assert_int_equal(begin(&s, "", &err), ATTN_OK);
    assert_int_equal(attn_host_processor_unbind(s.binding), ATTN_BUSY);
    assert_int_equal(attn_host_processor_close(s.processor), ATTN_BUSY);
    assert_int_equal(attn_registry_unregister(the_fault.registry, BAD_ID, 0, &err), ATTN_BUSY);
    end(&s);
    assert_int_equal(attn_registry_unregister(the_fault.registry, BAD_ID, 0, &err), ATTN_OK);
}

/* What the host itself forgets: the text names it where there is a place for one. */
static void test_sizes(void **state)
{
    ATTN_ERROR_ON(err, 512);
    session s;
    (void)state;
    assert_int_equal(begin(&s, "", &err), ATTN_OK);
    s.work.size = offsetof(attn_work, scales);
    assert_int_equal(attn_host_processor_run(s.plan, &s.call), ATTN_INVALID);
    assert_string_equal(err.text, "attn_work: size is 72, expected at least 96");
    err.text[0] = 0;
    s.work.size = 0;
    assert_int_equal(attn_host_processor_run(s.plan, &s.call), ATTN_INVALID);
    s.work.size = sizeof s.work;
    s.call.size = 0;
    assert_int_equal(attn_host_processor_run(s.plan, &s.call), ATTN_INVALID);
    assert_string_equal(err.text, "");
    end(&s);
}

FAULT_MAIN(FAULT_TEST(test), FAULT_TEST(test_text), FAULT_TEST(test_counted),
           FAULT_TEST(test_sizes))
