/* image_beside.c: opens the libraries that a plugin finds through $ORIGIN. */
#include "image_beside.h"

#include "error.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void image_say(const image_source *source, int32_t level, const char *format, ...)
{
    char text[512], line[1024];
    va_list args;
    if (!source->log) {
        return;
    }
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    (void)snprintf(line, sizeof line, "%.500s %s", source->path, text);
    source->log(source->log_ctx, level, line);
}

bool run_path_entry(const char *path, const char *origin, char *out, size_t capacity,
                    const char **rest)
{
    static const char *const words[] = {"$ORIGIN", "${ORIGIN}"};
    size_t n = strcspn(path, ":");
    *rest = path[n] ? path + n + 1 : NULL;
    for (size_t i = 0; i < 2; i++) {
        size_t w = strlen(words[i]);
        if (n >= w && strncmp(path, words[i], w) == 0 && (n == w || path[w] == '/')) {
            return snprintf(out, capacity, "%s%.*s", origin, (int)(n - w), path + w) <
                   (int)capacity;
        }
    }
    return false;
}

/* The first folder of the run path that has the library. */
static bool find_beside(const char *run_path, const char *origin, const char *name, size_t n,
                        char path[PATH_MAX])
{
    char folder[PATH_MAX - 256];
    for (const char *rest = run_path; rest;) {
        if (run_path_entry(rest, origin, folder, sizeof folder, &rest) &&
            snprintf(path, PATH_MAX, "%s/%.*s", folder, (int)n, name) < PATH_MAX &&
            access(path, R_OK) == 0) {
            return true;
        }
    }
    return false;
}

attn_status image_open_beside(const image_source *source, const elf_heads *heads, attn_error *err)
{
    char origin[PATH_MAX], path[PATH_MAX];
    if (!strstr(heads->run_path, "ORIGIN") || !realpath(source->path, origin)) {
        return ATTN_OK;
    }
    char *slash = strrchr(origin, '/');
    slash[slash == origin] = 0;
    for (const char *name = heads->needed; *name;) {
        size_t n = strcspn(name, "\n");
        if (!memchr(name, '/', n) && find_beside(heads->run_path, origin, name, n, path) &&
            !dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE)) {
            const char *why = dlerror();
            return attn_fail(err, ATTN_NOT_FOUND, "%s: %s", source->path,
                             why ? why : "a library beside it cannot be opened");
        }
        name += n + 1;
    }
    return ATTN_OK;
}
