/* stack_state.h: what protects the stacks of this process, to compare before loading and after: the
 * canary, which pages of the calling thread's stack and the first thread's may be executed, the
 * guard page, the limit, the alternate stack of signals. */
#ifndef TESTS_FAULTS_STACK_STATE_H
#define TESTS_FAULTS_STACK_STATE_H

#include "fault.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>

typedef struct {
    uint64_t canary;
    int executable; /* regions that hold a part of either stack and may be executed */
    char guard[8];  /* access to the page below a thread's stack, "" for the first thread */
    struct rlimit limit;
    stack_t signal_stack;
} stack_state;

static inline uint64_t stack_canary(void)
{
    uint64_t word = 0;
#if defined(__x86_64__)
    __asm__("mov %%fs:0x28, %0" : "=r"(word)); /* where gcc's -fstack-protector finds it */
#endif
    return word;
}

/* The calling thread's stack and the size of its guard below. */
static inline void stack_extent(uintptr_t *begin, uintptr_t *end, size_t *guard)
{
    pthread_attr_t attributes;
    void *low;
    size_t bytes;
    assert_int_equal(pthread_getattr_np(pthread_self(), &attributes), 0);
    assert_int_equal(pthread_attr_getstack(&attributes, &low, &bytes), 0);
    assert_int_equal(pthread_attr_getguardsize(&attributes, guard), 0);
    pthread_attr_destroy(&attributes);
    *begin = (uintptr_t)low;
    *end = *begin + bytes;
}

static inline stack_state stack_state_now(void)
{
    stack_state s = {.canary = stack_canary()};
    uintptr_t low, high;
    size_t guard;
    char line[512], access[5];
    unsigned long begin, end;
    stack_extent(&low, &high, &guard);
    FILE *maps = fopen("/proc/self/maps", "re");
    assert_non_null(maps);
    while (fgets(line, sizeof line, maps)) {
        if (sscanf(line, "%lx-%lx %4s", &begin, &end, access) != 3) {
            continue;
        }
        bool mine = begin < high && end > low;
        s.executable += access[2] == 'x' && (mine || strstr(line, "[stack]"));
        if (guard && low - 1 >= begin && low - 1 < end) {
            memcpy(s.guard, access, 4);
        }
    }
    (void)fclose(maps);
    assert_int_equal(getrlimit(RLIMIT_STACK, &s.limit), 0);
    assert_int_equal(sigaltstack(NULL, &s.signal_stack), 0);
    return s;
}

static inline void stack_state_expect(const stack_state *before)
{
    stack_state now = stack_state_now();
    assert_true(now.canary == before->canary);
    assert_int_equal(now.executable, before->executable);
    assert_string_equal(now.guard, before->guard);
    assert_true(now.limit.rlim_cur == before->limit.rlim_cur);
    assert_true(now.limit.rlim_max == before->limit.rlim_max);
    assert_ptr_equal(now.signal_stack.ss_sp, before->signal_stack.ss_sp);
    assert_int_equal(now.signal_stack.ss_flags, before->signal_stack.ss_flags);
    assert_int_equal(now.signal_stack.ss_size, before->signal_stack.ss_size);
}

#endif
