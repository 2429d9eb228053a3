/* probe.h: tries a plugin in a child process before it is let into this one.
 *
 * The child (attnplug-probe, installed beside the plugins' folder) opens the same sealed copy that
 * the host would, calls what can be called on a CPU, and leaves.  What counts is a word that the
 * host made up and the child repeats after its checks, never an exit status: a constructor may well
 * exit with 0.  Anybody who forges that word runs code on purpose; a probe finds faults, not foes.
 */
#ifndef ATTNPLUG_LOADER_PROBE_H
#define ATTNPLUG_LOADER_PROBE_H

#include "image.h"

/* ATTNPLUG_PROBE_SECONDS sets another time, 1 to 600. */
enum { PROBE_REASON = 512, PROBE_SECONDS = 10 };

/* Descriptors of the child, and what it is told on its command line: the path, for texts. */
enum { PROBE_FD_COPY = 3, PROBE_FD_RESULT = 4, PROBE_FD_WORD = 5, PROBE_WORD = 16 };

/* What the child writes after the word: a letter and, but for OK, a text. */
#define PROBE_OK         'o'
#define PROBE_UNRESOLVED 'u'
#define PROBE_BAD        'b' /* its head or functions are not what they say */
#define PROBE_BROKE      'r' /* it broke the contract when it was called */

typedef struct {
    uint32_t verdict; /* OK, UNRESOLVED, BAD_HEAD, RETIRED, CRASHED; UNTRUSTED where it could not be
                         tried */
    bool is_lasting;  /* the file's own fault, not the day's: may be remembered */
    char reason[PROBE_REASON];
} probe_result;

void probe_run(const char *path, const image_copy *copy, int seconds, probe_result *result);

/* The program that is the child; false: its place cannot be told. */
bool probe_helper(char *path, size_t capacity);

/* As probe_run, but remembers verdicts between processes by the file's device, inode, size and
 * times. */
void probe_cached(const char *path, const image_copy *copy, probe_result *result);
bool probe_recall(const file_key *key, probe_result *result);

#endif
