/* Closing and unregistering while a call runs: BUSY, or a wait, as the caller chose. */
#include "fault.h"

#include <fcntl.h>
#include <pthread.h>

typedef struct {
    attn_host_op *op;
    attn_host_op_plan *plan;
    attn_op_call call;
    attention a;
    double scratch[64];
    attn_status status;
    bool done;
} running;

static void *run(void *arg)
{
    running *r = arg;
    r->status = attn_host_op_run(r->plan, &r->call, NULL);
    return NULL;
}

static void *unregister(void *arg)
{
    running *r = arg;
    r->status = attn_registry_unregister(the_fault.registry, BAD_ID, ATTN_UNREGISTER_WAIT, NULL);
    __atomic_store_n(&r->done, true, __ATOMIC_SEQ_CST);
    return NULL;
}

static void start(running *r)
{
    const attn_device cpu = {ATTN_DEVICE_CPU, 0, "cpu"};
    static char fifo[128];
    (void)snprintf(fifo, sizeof fifo, "%s", fault_path("gate"));
    const attn_param param = {.name = "fifo", .kind = ATTN_PARAM_TEXT, .text = fifo};
    uint64_t bytes = 0;
    assert_int_equal(mkfifo(fifo, 0600), 0);
    fault_registry(0);
    assert_int_equal(
        attn_host_op_open(the_fault.registry, BAD_ID, &cpu, NULL, &param, 1, &r->op, NULL),
        ATTN_OK);
    attention_fill(&r->a, 1);
    r->call = attention_call(&r->a);
    r->call.scratch = r->scratch;
    assert_int_equal(attn_host_op_prepare(r->op, &r->call, &r->plan, &bytes, NULL), ATTN_OK);
    r->call.scratch_bytes = bytes;
}

static void test(void **state)
{
    running r = {0}, waiting = {0};
    pthread_t runner, waiter;
    ATTN_ERROR_ON(err, 512);
    (void)state;
    start(&r);
    assert_int_equal(pthread_create(&runner, NULL, run, &r), 0);
    int gate = open(fault_path("gate"), O_WRONLY | O_CLOEXEC); /* returns when the run is inside */
    assert_true(gate >= 0);

    assert_int_equal(attn_host_op_run(r.plan, &r.call, &err), ATTN_BUSY);
    assert_non_null(strstr(err.text, "running on another thread"));
    assert_int_equal(attn_host_op_close(r.op), ATTN_BUSY);
    assert_int_equal(attn_registry_unregister(the_fault.registry, BAD_ID, 0, &err), ATTN_BUSY);
    assert_non_null(strstr(err.text, "1 objects of it are open"));
    assert_int_equal(pthread_create(&waiter, NULL, unregister, &waiting), 0);
    usleep(30000);
    assert_false(__atomic_load_n(&waiting.done, __ATOMIC_SEQ_CST));
    fault_expect_refused(BAD_ID, ATTN_NOT_FOUND, BAD_ID); /* out of use from now on */

    assert_int_equal(write(gate, "x", 1), 1);
    close(gate);
    pthread_join(runner, NULL);
    assert_int_equal(r.status, ATTN_OK);
    assert_true(attention_error(&r.a) < 2e-6);
    attn_host_op_release(r.plan);
    assert_int_equal(attn_host_op_close(r.op), ATTN_OK);
    pthread_join(waiter, NULL);
    assert_int_equal(waiting.status, ATTN_OK);
    fault_expect("bad.so", ATTN_VERDICT_OK, "unregistered");
    fault_expect_good();
}

FAULT_MAIN(FAULT_TEST(test))
