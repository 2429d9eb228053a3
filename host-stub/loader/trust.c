/* trust.c: owners and permissions of plugin files and of the folders on the way to them. */
#include "trust.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool library_folder(char folder[PATH_MAX])
{
    Dl_info info;
    if (!dladdr((const void *)(uintptr_t)&library_folder, &info) || !info.dli_fname ||
        !realpath(info.dli_fname, folder)) {
        return false;
    }
    char *slash = strrchr(folder, '/');
    if (!slash) {
        return false;
    }
    slash[slash == folder] = 0;
    return true;
}

static uid_t library_owner(uid_t self)
{
    Dl_info info;
    struct stat st;
    if (dladdr((const void *)(uintptr_t)&library_folder, &info) && info.dli_fname &&
        stat(info.dli_fname, &st) == 0) {
        return st.st_uid;
    }
    return self;
}

void trust_init(trust *t, bool all)
{
    *t = (trust){.all = all, .self = geteuid()};
    t->library_owner = library_owner(t->self);
    if (!library_folder(t->library_folder)) {
        t->library_folder[0] = 0;
    }
}

static bool owner_trusted(const trust *t, uid_t owner)
{
    return owner == 0 || owner == t->self || owner == t->library_owner;
}

/* A group that is its owner's alone by the convention of private groups (gid == uid) is no
 * stranger; the umask of several distributions gives it write access everywhere. */
static bool others_may_write(const struct stat *st)
{
    bool private_group = st->st_gid == st->st_uid;
    return st->st_mode & S_IWOTH || (st->st_mode & S_IWGRP && !private_group);
}

bool trust_file(const trust *t, const struct stat *st, char reason[TRUST_REASON])
{
    if (t->all) {
        return true;
    }
    if (!owner_trusted(t, st->st_uid)) {
        (void)snprintf(reason, TRUST_REASON, "the file belongs to user %u, expected root or %u",
                       st->st_uid, t->self);
        return false;
    }
    if (others_may_write(st)) {
        (void)snprintf(reason, TRUST_REASON, "others may write the file (mode %04o)",
                       st->st_mode & 07777);
        return false;
    }
    return true;
}

/* Whether `folder` is the library's own folder or above it. */
static bool holds_library(const trust *t, const char *folder)
{
    size_t n = strlen(folder);
    if (n == 1) {
        return t->library_folder[0] == '/';
    }
    return strncmp(t->library_folder, folder, n) == 0 &&
           (t->library_folder[n] == 0 || t->library_folder[n] == '/');
}

/* nearest: the folder that holds the file itself; a sticky bit does not help there, since anybody
 * may add a file to it. */
static bool check_one(const trust *t, const char *folder, bool nearest, char reason[TRUST_REASON])
{
    struct stat st;
    if (holds_library(t, folder)) {
        return true;
    }
    if (stat(folder, &st) != 0) {
        (void)snprintf(reason, TRUST_REASON, "folder %.300s: %s", folder, strerror(errno));
        return false;
    }
    if (!owner_trusted(t, st.st_uid)) {
        (void)snprintf(reason, TRUST_REASON,
                       "folder %.300s belongs to user %u, expected root or %u", folder, st.st_uid,
                       t->self);
        return false;
    }
    if (others_may_write(&st) && (nearest || !(st.st_mode & S_ISVTX))) {
        (void)snprintf(reason, TRUST_REASON, "others may write folder %.300s (mode %04o)", folder,
                       st.st_mode & 07777);
        return false;
    }
    return true;
}

static bool check_all(const trust *t, const char *folder, char reason[TRUST_REASON])
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s", folder) >= (int)sizeof path || path[0] != '/') {
        (void)snprintf(reason, TRUST_REASON, "folder %.300s is not an absolute path", folder);
        return false;
    }
    bool nearest = true;
    for (;;) {
        if (!check_one(t, path, nearest, reason)) {
            return false;
        }
        if (!path[1]) {
            return true;
        }
        char *slash = strrchr(path, '/');
        slash[slash == path] = 0;
        nearest = false;
    }
}

bool trust_folder(trust *t, const char *folder, char reason[TRUST_REASON])
{
    if (t->all) {
        return true;
    }
    if (strcmp(t->seen, folder) != 0) {
        t->seen_reason[0] = 0;
        if (check_all(t, folder, t->seen_reason)) {
            t->seen_reason[0] = 0;
        }
        (void)snprintf(t->seen, sizeof t->seen, "%s", folder);
    }
    memcpy(reason, t->seen_reason, TRUST_REASON);
    return reason[0] == 0;
}
