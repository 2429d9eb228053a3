/* probe_cache.c: verdicts of probes, remembered between processes.
 *
 * ${XDG_CACHE_HOME:-~/.cache}/attnplug/probes: a first line, then one row a file: device, inode,
 * size, times of change in nanoseconds, verdict, reason; each with a sum of its own.  A file that
 * another user may write, or with one wrong byte, is not believed at all and is written anew.  Kept
 * small by forgetting the oldest rows.  A process with raised privileges has no cache.
 */
#include "probe.h"

#include "attn_host.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_ROWS = 1024, MAX_LINE = 1024, MAX_BYTES = MAX_ROWS * MAX_LINE };

typedef struct {
    char *rows[MAX_ROWS];
    int n;
} table;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static bool cache_folder(char folder[PATH_MAX], bool make)
{
    const char *cache = secure_getenv("XDG_CACHE_HOME");
    const char *home = secure_getenv("HOME");
    char base[PATH_MAX - 16];
    int n = cache && cache[0] == '/' ? snprintf(base, sizeof base, "%s", cache)
            : home && home[0] == '/' ? snprintf(base, sizeof base, "%s/.cache", home)
                                     : -1;
    if (n < 0 || n >= (int)sizeof base) {
        return false;
    }
    (void)snprintf(folder, PATH_MAX, "%s/attnplug", base);
    return !make || ((mkdir(base, 0700) == 0 || errno == EEXIST) &&
                     (mkdir(folder, 0700) == 0 || errno == EEXIST));
}

/* Verdicts of another probe's making are of no use: the line names the program by size and time. */
static void first_line(char *line, size_t capacity)
{
    char helper[PATH_MAX + 32];
    struct stat st = {0};
    if (probe_helper(helper, sizeof helper)) {
        (void)stat(helper, &st);
    }
    (void)snprintf(line, capacity, "attnplug probes 1 %lld %lld.%09ld\n", (long long)st.st_size,
                   (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

static uint64_t sum_of(const char *text, size_t n)
{
    uint64_t hash = 1469598103934665603u; /* FNV-1a */
    for (size_t i = 0; i < n; i++) {
        hash = (hash ^ (unsigned char)text[i]) * 1099511628211u;
    }
    return hash;
}

static void format_key(const file_key *key, char *text, size_t capacity)
{
    (void)snprintf(text, capacity, "%llx %llx %lld %lld.%09ld %lld.%09ld",
                   (unsigned long long)key->device, (unsigned long long)key->inode,
                   (long long)key->size, (long long)key->modified.tv_sec, key->modified.tv_nsec,
                   (long long)key->changed.tv_sec, key->changed.tv_nsec);
}

static void table_free(table *t)
{
    for (int i = 0; i < t->n; i++) {
        free(t->rows[i]);
    }
    t->n = 0;
}

/* A row without its sum, if the sum is right. */
static bool check_row(char *line)
{
    char *bar = strrchr(line, '|');
    char *end = NULL;
    if (!bar) {
        return false;
    }
    unsigned long long sum = strtoull(bar + 1, &end, 16);
    bool right = end != bar + 1 && !*end && sum == sum_of(line, (size_t)(bar - line));
    *bar = 0;
    return right;
}

static bool read_rows(FILE *file, table *t)
{
    char line[MAX_LINE], expected[MAX_LINE];
    first_line(expected, sizeof expected);
    if (!fgets(line, sizeof line, file) || strcmp(line, expected) != 0) {
        return false;
    }
    while (fgets(line, sizeof line, file)) {
        size_t n = strlen(line);
        if (t->n == MAX_ROWS || !n || line[n - 1] != '\n') {
            return false;
        }
        line[n - 1] = 0;
        if (!check_row(line)) {
            return false;
        }
        t->rows[t->n] = strdup(line);
        t->n += t->rows[t->n] != NULL;
    }
    return !ferror(file);
}

static void table_read(table *t)
{
    char folder[PATH_MAX], path[PATH_MAX + 16];
    struct stat st;
    t->n = 0;
    if (!cache_folder(folder, false)) {
        return;
    }
    (void)snprintf(path, sizeof path, "%s/probes", folder);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    if (fd < 0) {
        return;
    }
    bool ours = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() &&
                !(st.st_mode & (S_IWGRP | S_IWOTH)) && st.st_size <= MAX_BYTES;
    FILE *file = ours ? fdopen(fd, "r") : NULL;
    if (!file) {
        close(fd);
        return;
    }
    if (!read_rows(file, t)) {
        table_free(t);
    }
    (void)fclose(file);
}

static void table_write(const table *t)
{
    char folder[PATH_MAX], path[PATH_MAX + 16], temporary[PATH_MAX + 32];
    if (!cache_folder(folder, true)) {
        return;
    }
    (void)snprintf(path, sizeof path, "%s/probes", folder);
    (void)snprintf(temporary, sizeof temporary, "%s/probes.XXXXXX", folder);
    int fd = mkstemp(temporary);
    FILE *file = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (!file) {
        if (fd >= 0) {
            close(fd);
            unlink(temporary);
        }
        return;
    }
    char line[MAX_LINE];
    first_line(line, sizeof line);
    (void)fputs(line, file);
    for (int i = 0; i < t->n; i++) {
        (void)fprintf(file, "%s|%llx\n", t->rows[i],
                      (unsigned long long)sum_of(t->rows[i], strlen(t->rows[i])));
    }
    bool written = fflush(file) == 0 && !ferror(file);
    if (fclose(file) != 0 || !written || rename(temporary, path) != 0) {
        unlink(temporary);
    }
}

static int table_find(const table *t, const char *key)
{
    size_t n = strlen(key);
    for (int i = 0; i < t->n; i++) {
        if (strncmp(t->rows[i], key, n) == 0 && t->rows[i][n] == ' ') {
            return i;
        }
    }
    return -1;
}

bool probe_recall(const file_key *key, probe_result *result)
{
    char text[256];
    static table t;
    unsigned verdict = 0;
    int n = 0;
    format_key(key, text, sizeof text);
    pthread_mutex_lock(&lock);
    table_read(&t);
    int i = table_find(&t, text);
    bool known = i >= 0 && sscanf(t.rows[i] + strlen(text), " %u %n", &verdict, &n) == 1;
    if (known) {
        *result = (probe_result){.verdict = verdict, .is_lasting = true};
        (void)snprintf(result->reason, sizeof result->reason, "%s", t.rows[i] + strlen(text) + n);
    }
    table_free(&t);
    pthread_mutex_unlock(&lock);
    return known;
}

static void remember(const file_key *key, const probe_result *result)
{
    char text[256], row[MAX_LINE];
    static table t;
    format_key(key, text, sizeof text);
    int n = snprintf(row, sizeof row, "%s %u %s", text, result->verdict, result->reason);
    if (n >= MAX_LINE - 32 || strpbrk(row, "\n|")) {
        return;
    }
    pthread_mutex_lock(&lock);
    table_read(&t);
    int at = table_find(&t, text);
    if (at < 0 && t.n == MAX_ROWS) {
        at = 0; /* the oldest */
    }
    if (at >= 0) {
        free(t.rows[at]);
        memmove(&t.rows[at], &t.rows[at + 1], (size_t)(t.n - at - 1) * sizeof *t.rows);
        t.n--;
    }
    t.rows[t.n] = strdup(row);
    t.n += t.rows[t.n] != NULL;
    table_write(&t);
    table_free(&t);
    pthread_mutex_unlock(&lock);
}

void probe_cached(const char *path, const image_copy *copy, probe_result *result)
{
    if (probe_recall(&copy->key, result)) {
        return;
    }
    const char *text = secure_getenv("ATTNPLUG_PROBE_SECONDS");
    long seconds = text ? strtol(text, NULL, 10) : PROBE_SECONDS;
    probe_run(path, copy, seconds >= 1 && seconds <= 600 ? (int)seconds : PROBE_SECONDS, result);
    if (result->is_lasting && result->verdict != ATTN_VERDICT_UNTRUSTED) {
        remember(&copy->key, result);
    }
}
