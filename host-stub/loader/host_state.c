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

typedef struct {
    unsigned long begin, end;
    bool executable, first_stack; /* the first thread's, which grows */
} region;

/* False at the end.  A line may be as long as the path of a mapped file: only its beginning counts.
 */
static bool region_read(FILE *maps, region *r)
{
    char line[256], access[5];
    if (!maps || !fgets(line, sizeof line, maps) ||
        sscanf(line, "%lx-%lx %4s", &r->begin, &r->end, access) != 3) {
        return false;
    }
    r->executable = access[2] == 'x';
    r->first_stack = strstr(line, "[stack]") != NULL;
    while (!strchr(line, '\n') && fgets(line, sizeof line, maps)) {
    }
    return true;
}

static int stacks_find(host_stack stacks[HOST_STACKS])
{
    const unsigned long here = (unsigned long)(uintptr_t)&stacks;
    region r;
    int n = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    while (n < HOST_STACKS && region_read(maps, &r)) {
        if ((here >= r.begin && here < r.end) || r.first_stack) {
            stacks[n++] = (host_stack){r.begin, r.end, r.executable};
        }
    }
    if (maps) {
        (void)fclose(maps);
    }
    return n;
}

/* The part of a region that lies in a stack which was not executable. */
static bool stack_part(const host_state *state, const region *r, unsigned long *begin,
                       unsigned long *end)
{
    for (int i = 0; i < state->n_stacks; i++) {
        const host_stack *s = &state->stacks[i];
        *begin = r->begin > s->begin || r->first_stack ? r->begin : s->begin;
        *end = r->end < s->end ? r->end : s->end;
        if (!s->executable && *begin < *end && r->end > s->begin) {
            return true;
        }
    }
    return false;
}

/* Part of a stack may have been made executable, which parts its region in several. */
static bool restore_stacks(const host_state *state)
{
    bool changed = false;
    unsigned long begin, end;
    region r;
    FILE *maps = fopen("/proc/self/maps", "re");
    while (region_read(maps, &r)) {
        if (r.executable && stack_part(state, &r, &begin, &end)) {
            (void)mprotect((void *)(uintptr_t)begin, end - begin, PROT_READ | PROT_WRITE);
            changed = true;
        }
    }
    if (maps) {
        (void)fclose(maps);
    }
    return changed;
}

static bool restore_signal_stack(const host_state *state)
{
    stack_t now;
    const stack_t *was = &state->signal_stack;
    if (!state->signal_stack_known || sigaltstack(NULL, &now) != 0 ||
        (now.ss_sp == was->ss_sp && now.ss_size == was->ss_size && now.ss_flags == was->ss_flags)) {
        return false;
    }
    (void)sigaltstack(was, NULL);
    return true;
}

static bool restore_stack_limit(const host_state *state)
{
    struct rlimit now;
    const struct rlimit *was = &state->stack_limit;
    if (!state->stack_limit_known || getrlimit(RLIMIT_STACK, &now) != 0 ||
        (now.rlim_cur == was->rlim_cur && now.rlim_max == was->rlim_max)) {
        return false;
    }
    (void)setrlimit(RLIMIT_STACK, was);
    return true;
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
    state->n_stacks = stacks_find(state->stacks);
    state->signal_stack_known = sigaltstack(NULL, &state->signal_stack) == 0;
    state->stack_limit_known = getrlimit(RLIMIT_STACK, &state->stack_limit) == 0;
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
    if (restore_signal_stack(state)) {
        note(changed, capacity, "alternate signal stack");
    }
    if (restore_stack_limit(state)) {
        note(changed, capacity, "stack limit");
    }
    if (restore_stacks(state)) {
        note(changed, capacity, "stack protection");
    }
}
