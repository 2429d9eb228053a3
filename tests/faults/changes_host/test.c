/* The host's floating-point mode, signals and locale are the same after loading as before, and the
 * log says what was put back. */
#include "fault.h"

#include <float.h>
#include <locale.h>
#include <signal.h>

static void test(void **state)
{
    struct sigaction before, after;
    sigset_t mask;
    volatile float tiny = FLT_MIN;
    (void)state;
    assert_int_equal(sigaction(SIGUSR1, NULL, &before), 0);
    fault_registry(0);
    attn_host_op *op = fault_open(BAD_ID);
    assert_int_equal(sigaction(SIGUSR1, NULL, &after), 0);
    assert_true(before.sa_handler == after.sa_handler);
    assert_int_equal(sigprocmask(SIG_BLOCK, NULL, &mask), 0);
    assert_false(sigismember(&mask, SIGUSR2));
    assert_string_equal(setlocale(LC_ALL, NULL), "C");
    assert_true(tiny / 2 > 0); /* denormals are not flushed */
#if defined(__x86_64__)
    assert_non_null(strstr(the_fault.log,
                           "changed the host's floating-point mode, signal handlers, "
                           "signal mask, locale while loading: put back"));
#endif
    fault_expect_right(op);
    assert_int_equal(attn_host_op_close(op), ATTN_OK);
    fault_expect_good();
}

FAULT_MAIN(FAULT_TEST(test))
