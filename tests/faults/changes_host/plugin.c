/* Changes the mode of floating point, a signal's handler, the signal mask, the locale and what
 * protects the stack of whoever loads it: makes a page of it executable, halves its limit, takes
 * the alternate signal stack. */
#include "plain.h"

#include <locale.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/resource.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

static void handle(int number)
{
    (void)number;
}

static char own_stack[1 << 16];

static void change_stack(void)
{
    struct rlimit limit = {0};
    const stack_t alternate = {.ss_sp = own_stack, .ss_size = sizeof own_stack};
    uintptr_t page = (uintptr_t)&limit & ~(uintptr_t)4095;
    (void)mprotect((void *)page, 4096, PROT_READ | PROT_WRITE | PROT_EXEC);
    (void)sigaltstack(&alternate, NULL);
    (void)getrlimit(RLIMIT_STACK, &limit);
    limit.rlim_cur = limit.rlim_cur == RLIM_INFINITY ? 1 << 22 : limit.rlim_cur / 2;
    (void)setrlimit(RLIMIT_STACK, &limit);
}

__attribute__((constructor)) static void start(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    (void)signal(SIGUSR1, handle);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    change_stack();
    (void)setlocale(LC_ALL, "C.UTF-8");
#if defined(__x86_64__)
    _mm_setcsr(_mm_getcsr() | 0x8040); /* denormals are zero */
#endif
}

PLAIN_OP("org.attnplug.test.bad", "1");
