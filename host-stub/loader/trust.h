/* trust.h: could somebody else have put this file here, or change it?
 *
 * Trusted owners are root, the user that the process runs as, and the owner of libattnplug itself,
 * whose code runs already.  Folders that hold libattnplug are taken as they are for that reason.
 */
#ifndef ATTNPLUG_LOADER_TRUST_H
#define ATTNPLUG_LOADER_TRUST_H

#include <limits.h>
#include <stdbool.h>
#include <sys/stat.h>

enum { TRUST_REASON = 512 };

typedef struct {
    bool all; /* ask nothing */
    uid_t self, library_owner;
    char library_folder[PATH_MAX];  /* real path, "" where it is not known */
    char seen[PATH_MAX];            /* the last folder that was judged ... */
    char seen_reason[TRUST_REASON]; /* ... and what was found: "" for trusted */
} trust;

void trust_init(trust *t, bool all);

/* A folder (real path) and all above it. False: `reason` names the one that is at fault. */
bool trust_folder(trust *t, const char *folder, char reason[TRUST_REASON]);

/* The file itself: `st` of what was opened. */
bool trust_file(const trust *t, const struct stat *st, char reason[TRUST_REASON]);

/* The folder of the shared object that holds this code; false where it cannot be told. */
bool library_folder(char folder[PATH_MAX]);

#endif
