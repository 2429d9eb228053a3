#include "op_run.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    TOKEN = 97
}; /* exit status of a child that came to its end; 0 is what a plugin's exit() would give */

static int64_t known(const struct result *r)
{
    return r->n_failing < CHECK_FAILING ? r->n_failing : CHECK_FAILING;
}

/* A case may have several findings, and may have been run more than once. */
static void count_case(struct result *r)
{
    for (int64_t i = 0; i < known(r); i++)
        if (r->failing[i] == r->current)
            return;
    if (r->current < 0)
        return;
    if (r->n_failing < CHECK_FAILING)
        r->failing[r->n_failing] = r->current;
    r->n_failing++;
}

static void note(struct result *r, const char *format, va_list args)
{
    r->verdict = VERDICT_FAIL;
    r->failed++;
    count_case(r);
    if (r->failed > 1)
        return;
    r->first = r->current;
    (void)vsnprintf(r->message, sizeof r->message, format, args);
}

void finding(struct result *r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    note(r, format, args);
    va_end(args);
}

void finding_numeric(struct result *r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    note(r, format, args);
    va_end(args);
    r->numeric++;
}

void finding_more(struct result *r, const char *format, ...)
{
    const size_t used = strlen(r->message);
    va_list args;
    va_start(args, format);
    (void)vsnprintf(r->message + used, sizeof r->message - used, format, args);
    va_end(args);
}

void begin_case(struct result *r, int64_t index, const char *text)
{
    r->cases++;
    r->current = index;
    if (!r->failed)
        (void)snprintf(r->case_text, sizeof r->case_text, "%s", text);
}

void case_range(const struct check *k, int64_t quick, int64_t full, int64_t *first, int64_t *end)
{
    const struct check_options *o = k->options;
    *first = o->case_index >= 0 ? o->case_index : 0;
    *end =
        o->case_index >= 0 ? o->case_index + 1 : (o->cases ? o->cases : (o->quick ? quick : full));
}

#define MOST_LOAD 10   /* a test's time is at most so many times its limit */
#define RESTING   0.01 /* of the time: less is a process that waits for something */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Seconds of processor time that a process has had; 0 where nobody says. */
static double used_by(pid_t process)
{
    clockid_t clock;
    struct timespec t;
    if (clock_getcpuclockid(process, &clock) != 0 || clock_gettime(clock, &t) != 0)
        return 0;
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Waits until the child ends or the time is over; then kills it.  Returns its wait status, -1 for a
 * hang.  On a machine with other work the time is the processor's, as long as the child gets any:
 * one that rests for `seconds` hangs. */
static int wait_for(pid_t child, int seconds)
{
    const double last = now() + MOST_LOAD * seconds;
    double deadline = now() + seconds, used = 0;
    for (;;) {
        int status;
        pid_t done = waitpid(child, &status, WNOHANG);
        if (done == child)
            return status;
        if (now() > deadline) {
            const double all = used_by(child);
            if (all >= seconds || all - used < RESTING * seconds || now() > last) {
                kill(child, SIGKILL);
                while (waitpid(child, &status, 0) < 0 && errno == EINTR)
                    ;
                return -1;
            }
            used = all;
            deadline = now() + seconds;
        }
        struct timespec nap = {0, 2000000};
        nanosleep(&nap, NULL);
    }
}

static void judge(struct result *r, int status, int seconds)
{
    if (status == -1)
        finding(r, "did not end within %d s", seconds);
    else if (WIFSIGNALED(status))
        finding(r, "killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else if (!WIFEXITED(status) || WEXITSTATUS(status) != TOKEN)
        finding(r, "the process was ended from within, with status %d", WEXITSTATUS(status));
}

/* A test of which nothing ran is no pass; what a fit plugin has to show must have been seen. */
static void judge_seen(const struct check_options *o, const struct test *t, struct result *r)
{
    if (r->verdict != VERDICT_PASS || r->taken || !r->cases)
        return;
    r->verdict = VERDICT_NONE;
    if (t->shows && o->case_index < 0) {
        r->current = -1;
        finding(r, "took none of %lld calls, so that %s was never seen", (long long)r->cases,
                t->shows);
    }
}

/* The child's whole life, in a process group of its own, and no longer than the parent's. */
static void live(const struct check_options *o, const struct test *t, struct result *r)
{
    struct check k;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)setpgid(0, 0);
    if (check_open(&k, o, r) == ATTN_OK)
        t->run(&k, r);
    r->current = -1;
    _exit(TOKEN);
}

void run_child(const struct check_options *o, const struct test *t, int seconds, struct result *out)
{
    memset(out, 0, sizeof *out);
    (void)snprintf(out->name, sizeof out->name, "%s", t->name);
    out->first = out->current = out->worst_case = -1;
    struct result *r =
        mmap(NULL, sizeof *r, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (r == MAP_FAILED) {
        finding(out, "no memory for the test's result");
        return;
    }
    *r = *out;
    double start = now();
    fflush(NULL);
    pid_t child = fork();
    if (child == 0)
        live(o, t, r);
    if (child < 0)
        finding(r, "fork: %s", strerror(errno));
    else
        judge(r, wait_for(child, seconds), seconds);
    if (child > 0 && kill(-child, SIGKILL) == 0)
        finding(r, "a process is left behind");
    judge_seen(o, t, r);
    if (r->numeric)
        features_tell(r); /* here, so that it is told of a test that was cut short, too */
    r->seconds = now() - start;
    *out = *r;
    munmap(r, sizeof *r);
}
