#include "adapter_file.h"

#include "attn_host.h"
#include "pickle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* -- opening ----------------------------------------------------------------------------------- */

static int ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text);
    const size_t m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* path or path/<in_folder>, for the caller to free; NULL without memory. */
static char *path_of(const char *path, const char *in_folder)
{
    struct stat info;
    char *whole = NULL;
    if (stat(path, &info) != 0 || !S_ISDIR(info.st_mode)) {
        return strdup(path);
    }
    return asprintf(&whole, "%s/%s", path, in_folder) < 0 ? NULL : whole;
}

/* The pickle that stands in a folder where the safetensors file is missing. */
static char *pickle_beside(const char *path)
{
    static const char ending[] = ".safetensors";
    struct stat info;
    char *bin = NULL;
    if (!ends_with(path, ending) ||
        asprintf(&bin, "%.*s.bin", (int)(strlen(path) - strlen(ending)), path) < 0) {
        return NULL;
    }
    if (stat(bin, &info) != 0) {
        free(bin);
        return NULL;
    }
    return bin;
}

attn_status adapter_open(const char *path, const char *in_folder, safetensors **out,
                         attn_error *err)
{
    struct stat info;
    attn_status status;
    char *bin = NULL;
    char *whole = path_of(path, in_folder);
    *out = NULL;
    if (!whole) {
        return attn_fail(err, ATTN_NOMEM, "%s: no memory to open it", path);
    }
    const int there = stat(whole, &info) == 0 && S_ISREG(info.st_mode);
    if (!there) {
        bin = pickle_beside(whole);
    }
    if (bin || (there && pickle_is(whole))) {
        status = pickle_refuse(bin ? bin : whole, err);
    } else {
        status = safetensors_open(whole, out, err);
    }
    free(bin);
    free(whole);
    return status;
}

/* -- families ---------------------------------------------------------------------------------- */

const char *family_of_width(int64_t width)
{
    switch (width) {
    case 768:
        return "Stable Diffusion 1.x";
    case 1024:
        return "Stable Diffusion 2.x";
    case 1280:
    case 2048:
        return "Stable Diffusion XL";
    case 4096:
        return "Stable Diffusion 3 or Flux";
    default:
        return NULL;
    }
}

attn_status family_refuse(const char *path, int64_t theirs, int64_t ours, attn_error *err)
{
    const char *from = family_of_width(theirs);
    const char *to = family_of_width(ours);
    return attn_fail(err, ATTN_UNSUPPORTED,
                     "%s: made for %s (prompt embeddings of %lld), but this model is %s (%lld)",
                     path, from ? from : "another model", (long long)theirs,
                     to ? to : "of another width", (long long)ours);
}
