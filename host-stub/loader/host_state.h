/* host_state.h: what loading code into a process can change behind the host's back.
 *
 * A constructor (or the start-up file that -ffast-math links in) may change the thread's rounding
 * and denormals mode, take over signals, set the locale, make stacks executable, limit them, or
 * take the alternate stack that a handler of overflows runs on.  The loader puts back what it finds
 * changed, and says so.
 */
#ifndef ATTNPLUG_LOADER_HOST_STATE_H
#define ATTNPLUG_LOADER_HOST_STATE_H

#include <locale.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>

enum { HOST_SIGNALS = 64, HOST_STACKS = 2 };

/* The calling thread's stack or the first thread's, as /proc/self/maps has it. */
typedef struct {
    unsigned long begin, end;
    bool executable;
} host_stack;

typedef struct {
    uint64_t floating_point; /* the thread's control word */
    uint16_t x87;
    struct sigaction actions[HOST_SIGNALS + 1];
    bool action_known[HOST_SIGNALS + 1];
    sigset_t mask;
    char locale[512];
    locale_t thread_locale;
    host_stack stacks[HOST_STACKS];
    int n_stacks;
    stack_t signal_stack;
    bool signal_stack_known;
    struct rlimit stack_limit;
    bool stack_limit_known;
} host_state;

void host_state_save(host_state *state);

/* Puts everything back. Writes what was different, comma-separated, "" if nothing. */
void host_state_restore(const host_state *state, char *changed, unsigned capacity);

#endif
