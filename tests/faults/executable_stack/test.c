/* Refused by its bytes; taken where the caller says so in code, and then no stack becomes
 * executable: neither this thread's, nor one that waits elsewhere, nor one made later. */
#include "stack_state.h"

#include <elf.h>

static pthread_barrier_t opened;

static void *wait_beside(void *arg)
{
    (void)arg;
    stack_state before = stack_state_now();
    pthread_barrier_wait(&opened); /* it begins */
    pthread_barrier_wait(&opened); /* it is loaded */
    stack_state_expect(&before);
    assert_int_equal(before.executable, 0);
    return NULL;
}

static void *look(void *arg)
{
    (void)arg;
    assert_int_equal(stack_state_now().executable, 0);
    return NULL;
}

static void expect_plain_stacks(void)
{
    pthread_t beside, later;
    stack_state before = stack_state_now();
    assert_int_equal(before.executable, 0);
    assert_int_equal(pthread_barrier_init(&opened, NULL, 2), 0);
    assert_int_equal(pthread_create(&beside, NULL, wait_beside, NULL), 0);
    pthread_barrier_wait(&opened);
    attn_host_op *op = fault_open(BAD_ID);
    pthread_barrier_wait(&opened);
    stack_state_expect(&before);
    assert_int_equal(pthread_join(beside, NULL), 0);
    assert_int_equal(pthread_create(&later, NULL, look, NULL), 0);
    assert_int_equal(pthread_join(later, NULL), 0);
    fault_expect_right(op);
    assert_int_equal(attn_host_op_close(op), ATTN_OK);
    pthread_barrier_destroy(&opened);
}

static void test(void **state)
{
    (void)state;
    fault_registry(0);
    fault_expect("bad.so", ATTN_VERDICT_UNTRUSTED, "asks for an executable stack");
    fault_expect_refused(BAD_ID, ATTN_NOT_FOUND, BAD_ID);
    fault_expect_good();
    fault_registry(ATTN_REGISTRY_TRUST_ALL);
    fault_expect("bad.so", ATTN_VERDICT_OK, "");
    expect_plain_stacks();
}

/* Without a PT_GNU_STACK the dynamic linker takes the stack to be executable. */
static void test_header_missing(void **state)
{
    size_t n = 0;
    unsigned char *bytes = fault_plugin_bytes(&n);
    Elf64_Ehdr h;
    Elf64_Phdr p;
    (void)state;
    memcpy(&h, bytes, sizeof h);
    for (int i = 0; i < h.e_phnum; i++) {
        unsigned char *at = bytes + h.e_phoff + (size_t)i * sizeof p;
        memcpy(&p, at, sizeof p);
        if (p.p_type == PT_GNU_STACK) {
            memset(at, 0, sizeof p);
        }
    }
    fault_put_bytes(bytes, n, "bad.so");
    free(bytes);
    fault_registry(0);
    fault_expect("bad.so", ATTN_VERDICT_UNTRUSTED, "asks for an executable stack");
    fault_registry(ATTN_REGISTRY_TRUST_ALL);
    expect_plain_stacks();
}

FAULT_MAIN(FAULT_TEST(test), FAULT_TEST(test_header_missing))
