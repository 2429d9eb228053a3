/* Changes the mode of floating point, a signal's handler, the signal mask and the locale of whoever
 * loads it. */
#include "plain.h"

#include <locale.h>
#include <signal.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

static void handle(int number)
{
    (void)number;
}

__attribute__((constructor)) static void start(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    (void)signal(SIGUSR1, handle);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    (void)setlocale(LC_ALL, "C.UTF-8");
#if defined(__x86_64__)
    _mm_setcsr(_mm_getcsr() | 0x8040); /* denormals are zero */
#endif
}

PLAIN_OP("org.attnplug.test.bad", "1");
