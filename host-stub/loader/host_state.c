/* host_state.c: saves and restores floating-point mode, signals, locale and stack protection. */
#include "host_state.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

static uint64_t floating_point_get(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_stmxcsr() & ~0x3fu; /* the low six bits are flags of past operations */
#elif defined(__aarch64__)
    uint64_t fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    return fpcr;
#else
    return 0;
#endif
}

static void floating_point_set(uint64_t value)
{
#if defined(__x86_64__)
    __builtin_ia32_ldmxcsr((uint32_t)value | (__builtin_ia32_stmxcsr() & 0x3fu));
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(value));
#else
    (void)value;
#endif
}

static uint16_t x87_get(void)
{
    uint16_t word = 0;
#if defined(__x86_64__)
    __asm__ volatile("fnstcw %0" : "=m"(word));
#endif
    return word;
}

static void x87_set(uint16_t word)
{
#if defined(__x86_64__)
    __asm__ volatile("fldcw %0" : : "m"(word));
#else
    (void)word;
#endif
}

/* A stack of this process in /proc/self/maps: the one that holds `address`, or "[stack]". */
typedef struct {
    unsigned long begin, end;
    bool executable;
} stack_region;

static int find_stacks(unsigned long address, stack_region stacks[2])
{
    char line[512];
    int n = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    while (maps && n < 2 && fgets(line, sizeof line, maps)) {
        stack_region r = {0};
        char access[5];
        if (sscanf(line, "%lx-%lx %4s", &r.begin, &r.end, access) != 3) {
            continue;
        }
        if ((address >= r.begin && address < r.end) || strstr(line, "[stack]")) {
            r.executable = access[2] == 'x';
            stacks[n++] = r;
        }
    }
    if (maps) {
        (void)fclose(maps);
    }
    return n;
}

static bool any_stack_executable(bool restore)
{
    stack_region stacks[2];
    bool found = false;
    int n = find_stacks((unsigned long)(uintptr_t)&stacks, stacks);
    for (int i = 0; i < n; i++) {
        if (stacks[i].executable) {
            found = true;
            if (restore) {
                (void)mprotect((void *)(uintptr_t)stacks[i].begin, stacks[i].end - stacks[i].begin,
                               PROT_READ | PROT_WRITE);
            }
        }
    }
    return found;
}

void host_state_save(host_state *state)
{
    memset(state, 0, sizeof *state);
    state->floating_point = floating_point_get();
    state->x87 = x87_get();
    for (int i = 1; i <= HOST_SIGNALS; i++) {
        state->action_known[i] = sigaction(i, NULL, &state->actions[i]) == 0;
    }
    pthread_sigmask(SIG_SETMASK, NULL, &state->mask);
    const char *locale = setlocale(LC_ALL, NULL);
    (void)snprintf(state->locale, sizeof state->locale, "%s", locale ? locale : "");
    state->thread_locale = uselocale((locale_t)0);
    state->stack_executable = any_stack_executable(false);
}

static void note(char *changed, unsigned capacity, const char *what)
{
    size_t n = strlen(changed);
    (void)snprintf(changed + n, capacity - n, "%s%s", n ? ", " : "", what);
}

static bool restore_signals(const host_state *state)
{
    bool changed = false;
    for (int i = 1; i <= HOST_SIGNALS; i++) {
        struct sigaction now;
        const struct sigaction *was = &state->actions[i];
        if (!state->action_known[i] || sigaction(i, NULL, &now) != 0) {
            continue;
        }
        if (now.sa_handler != was->sa_handler || now.sa_flags != was->sa_flags) {
            (void)sigaction(i, was, NULL);
            changed = true;
        }
    }
    return changed;
}

static bool restore_mask(const host_state *state)
{
    sigset_t now;
    pthread_sigmask(SIG_SETMASK, NULL, &now);
    for (int i = 1; i <= HOST_SIGNALS; i++) {
        if (sigismember(&now, i) != sigismember(&state->mask, i)) {
            pthread_sigmask(SIG_SETMASK, &state->mask, NULL);
            return true;
        }
    }
    return false;
}

static bool restore_locale(const host_state *state)
{
    bool changed = false;
    const char *now = setlocale(LC_ALL, NULL);
    if (now && state->locale[0] && strcmp(now, state->locale) != 0) {
        (void)setlocale(LC_ALL, state->locale);
        changed = true;
    }
    if (uselocale((locale_t)0) != state->thread_locale) {
        (void)uselocale(state->thread_locale);
        changed = true;
    }
    return changed;
}

void host_state_restore(const host_state *state, char *changed, unsigned capacity)
{
    changed[0] = 0;
    if (floating_point_get() != state->floating_point || x87_get() != state->x87) {
        floating_point_set(state->floating_point);
        x87_set(state->x87);
        note(changed, capacity, "floating-point mode");
    }
    if (restore_signals(state)) {
        note(changed, capacity, "signal handlers");
    }
    if (restore_mask(state)) {
        note(changed, capacity, "signal mask");
    }
    if (restore_locale(state)) {
        note(changed, capacity, "locale");
    }
    if (!state->stack_executable && any_stack_executable(true)) {
        note(changed, capacity, "stack protection");
    }
}
