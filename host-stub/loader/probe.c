/* probe.c: the host's side of a probe: starts the child, waits no longer than it may, judges. */
#include "probe.h"

#include "trust.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { OUT_OF_THE_WAY = 32, MESSAGE = PROBE_WORD + 1 + PROBE_REASON };

__attribute__((format(printf, 3, 4))) static void judge(probe_result *r, uint32_t verdict,
                                                        const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(r->reason, sizeof r->reason, format, args);
    va_end(args);
    r->verdict = verdict;
}

typedef struct {
    pid_t pid;
    int result;                     /* read end */
    unsigned char word[PROBE_WORD]; /* made up for this child */
} child;

/* No input, no output, and the three descriptors that probe.h names; an error number. */
static int describe_files(posix_spawn_file_actions_t *actions, int copy, int result, int word)
{
    static const int access[] = {O_RDONLY, O_WRONLY, O_WRONLY};
    const int from[] = {copy, result, word};
    const int to[] = {PROBE_FD_COPY, PROBE_FD_RESULT, PROBE_FD_WORD};
    int rc = 0;
    for (int i = 0; i < 3 && !rc; i++) {
        rc = posix_spawn_file_actions_addopen(actions, i, "/dev/null", access[i], 0);
    }
    for (int i = 0; i < 3 && !rc; i++) {
        rc = posix_spawn_file_actions_adddup2(actions, from[i], to[i]);
    }
    return rc ? rc : posix_spawn_file_actions_addclosefrom_np(actions, PROBE_FD_WORD + 1);
}

static int spawn(const char *helper, const char *path, int copy, int result, int word, pid_t *pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    char *argv[] = {"attnplug-probe", (char *)(uintptr_t)path, NULL};
    posix_spawn_file_actions_init(&actions); /* this and the next cannot fail in glibc */
    posix_spawnattr_init(&attributes);
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                              POSIX_SPAWN_SETPGROUP);
    int rc = describe_files(&actions, copy, result, word);
    rc = rc ? rc : posix_spawn(pid, helper, &actions, &attributes, argv, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return rc;
}

/* A pipe whose ends do not stand where the child's descriptors will. */
static bool pipe_high(int ends[2])
{
    int low[2];
    if (pipe2(low, O_CLOEXEC) != 0) {
        return false;
    }
    ends[0] = fcntl(low[0], F_DUPFD_CLOEXEC, OUT_OF_THE_WAY);
    ends[1] = fcntl(low[1], F_DUPFD_CLOEXEC, OUT_OF_THE_WAY);
    close(low[0]);
    close(low[1]);
    return ends[0] >= 0 && ends[1] >= 0;
}

static void close_all(const int *fds, int n)
{
    for (int i = 0; i < n; i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
}

static bool start(const char *helper, const char *path, const image_copy *copy, child *c,
                  probe_result *r)
{
    int fds[5] = {-1, -1, -1, -1, -1}; /* result's ends, word's ends, the copy */
    bool ok = getrandom(c->word, sizeof c->word, 0) == sizeof c->word && pipe_high(&fds[0]) &&
              pipe_high(&fds[2]);
    fds[4] = fcntl(copy->fd, F_DUPFD_CLOEXEC, OUT_OF_THE_WAY);
    ok = ok && fds[4] >= 0 && write(fds[3], c->word, sizeof c->word) == sizeof c->word;
    int rc = ok ? spawn(helper, path, fds[4], fds[1], fds[2], &c->pid) : errno;
    if (!ok || rc) {
        judge(r, ATTN_VERDICT_UNTRUSTED, "cannot be probed: %s: %s", helper, strerror(rc));
        close_all(fds, 5);
        return false;
    }
    c->result = fds[0];
    close_all(fds + 1, 4);
    return true;
}

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Reads until the other end closes. False: time is up. */
static bool read_message(int fd, int64_t deadline, unsigned char *message, size_t *n)
{
    *n = 0;
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int64_t left = deadline - now_ms();
        int ready = left > 0 ? poll(&p, 1, (int)left) : 0;
        if (ready < 0 && errno == EINTR) {
            continue;
        }
        if (ready <= 0) {
            return false;
        }
        unsigned char rest[256];
        bool full = *n >= MESSAGE; /* whoever writes more is read, and not kept */
        ssize_t got = read(fd, full ? rest : message + *n, full ? sizeof rest : MESSAGE - *n);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return true;
        }
        *n += full ? 0 : (size_t)got;
    }
}

/* Waits for the child, or kills it and all it has started. False: it had to be killed. */
static bool reap(pid_t pid, int64_t deadline, int *status)
{
    const struct timespec pause = {0, 500000};
    for (;;) {
        pid_t got = waitpid(pid, status, WNOHANG);
        if (got == pid) {
            (void)kill(-pid, SIGKILL); /* children of its own */
            return true;
        }
        if (got < 0 && errno != EINTR) {
            *status = 0; /* the host reaps all children itself: nothing to be learnt */
            return true;
        }
        if (now_ms() >= deadline) {
            (void)kill(-pid, SIGKILL);
            (void)kill(pid, SIGKILL);
            (void)waitpid(pid, status, 0);
            return false;
        }
        nanosleep(&pause, NULL);
    }
}

static void judge_status(probe_result *r, int status, const char *when)
{
    if (WIFSIGNALED(status)) {
        judge(r, ATTN_VERDICT_CRASHED, "died of signal %d (%s) %s", WTERMSIG(status),
              strsignal(WTERMSIG(status)), when);
    } else {
        judge(r, ATTN_VERDICT_CRASHED, "exited with %d %s", WEXITSTATUS(status), when);
    }
}

static void judge_message(probe_result *r, const child *c, const unsigned char *message, size_t n,
                          bool in_time, bool reaped, int status)
{
    bool repeated = n > PROBE_WORD && memcmp(message, c->word, PROBE_WORD) == 0;
    char text[PROBE_REASON] = "";
    r->is_lasting = reaped && in_time;
    if (repeated) {
        size_t length = n - PROBE_WORD - 1;
        memcpy(text, message + PROBE_WORD + 1, length < sizeof text ? length : sizeof text - 1);
    }
    if (!in_time || !reaped) {
        judge(r, ATTN_VERDICT_CRASHED, "still at it after its time was up%s",
              repeated ? ", while the process was to end" : " while it was tried");
    } else if (!repeated && n) {
        judge(r, ATTN_VERDICT_CRASHED, "wrote to a descriptor that is not its own");
    } else if (!repeated) {
        judge_status(r, status, "while it was tried");
    } else if (message[PROBE_WORD] == PROBE_UNRESOLVED) {
        r->is_lasting = false; /* what is missing today may be installed tomorrow */
        judge(r, ATTN_VERDICT_UNRESOLVED, "%s", text);
    } else if (message[PROBE_WORD] == PROBE_BROKE) {
        judge(r, ATTN_VERDICT_RETIRED, "when it was tried: %s", text);
    } else if (message[PROBE_WORD] != PROBE_OK) {
        judge(r, ATTN_VERDICT_BAD_HEAD, "%s", text);
    } else if (status != 0) {
        judge_status(r, status, "while the process ended");
    } else {
        judge(r, ATTN_VERDICT_OK, "%s", "");
    }
}

bool probe_helper(char *path, size_t capacity)
{
    char folder[PATH_MAX];
    return library_folder(folder) &&
           snprintf(path, capacity, "%s/attnplug/attnplug-probe", folder) < (int)capacity;
}

void probe_run(const char *path, const image_copy *copy, int seconds, probe_result *r)
{
    char helper[PATH_MAX + 32] = "attnplug-probe";
    child c = {.pid = -1, .result = -1};
    *r = (probe_result){0};
    if (!probe_helper(helper, sizeof helper)) {
        judge(r, ATTN_VERDICT_UNTRUSTED, "cannot be probed: libattnplug does not know its place");
        return;
    }
    if (!start(helper, path, copy, &c, r)) {
        return;
    }
    unsigned char message[MESSAGE];
    size_t n = 0;
    int status = 0;
    int64_t deadline = now_ms() + (int64_t)seconds * 1000;
    bool in_time = read_message(c.result, deadline, message, &n);
    bool reaped = reap(c.pid, in_time ? deadline : 0, &status);
    close(c.result);
    judge_message(r, &c, message, n, in_time, reaped, status);
}
