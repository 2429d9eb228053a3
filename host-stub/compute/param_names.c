#include "param_names.h"

#include <stdint.h>
#include <string.h>

bool param_name_fits(const char *pattern, const char *name)
{
    const char *star = strchr(pattern, '*');
    const size_t length = strlen(name);
    if (!star)
        return strcmp(pattern, name) == 0;
    const size_t before = (size_t)(star - pattern), after = strlen(star + 1);
    return length >= before + after && strncmp(name, pattern, before) == 0 &&
           strcmp(name + length - after, star + 1) == 0;
}

bool param_name_known(const attn_param_list *list, const char *name)
{
    for (uint32_t i = 0; i < list->count; ++i)
        if (param_name_fits(list->params[i].name, name))
            return true;
    return false;
}

enum { LONGEST_NAME = 127 };

static uint32_t least(uint32_t a, uint32_t b, uint32_t c)
{
    const uint32_t ab = a < b ? a : b;
    return ab < c ? ab : c;
}

/* Edits that make `name` of `pattern` (Wagner and Fischer 1974, one row kept); what '*' stands for
 * costs two edits, however long it is. */
static uint32_t edits(const char *pattern, const char *name)
{
    enum { STAR = 2 };
    uint32_t row[LONGEST_NAME + 1];
    const size_t n = strnlen(name, LONGEST_NAME);
    for (size_t k = 0; k <= n; ++k)
        row[k] = (uint32_t)k;
    for (const char *p = pattern; *p; ++p) {
        const bool star = *p == '*';
        uint32_t corner = row[0], run = UINT32_MAX - STAR;
        row[0] += star ? 0 : 1;
        for (size_t k = 1; k <= n; ++k) {
            const uint32_t up = row[k];
            run = least(run, corner + STAR, UINT32_MAX);
            row[k] = star ? least(up, run, UINT32_MAX)
                          : least(corner + (*p != name[k - 1]), up + 1, row[k - 1] + 1);
            corner = up;
        }
    }
    return row[n];
}

attn_status param_name_check(const attn_param_list *list, const char *name, const char *who,
                             attn_error *err)
{
    const char *nearest = NULL;
    uint32_t fewest = UINT32_MAX;
    if (!name)
        return attn_fail(err, ATTN_INVALID, "%s: a parameter has no name", who);
    if (param_name_known(list, name))
        return ATTN_OK;
    for (uint32_t i = 0; i < list->count; ++i) {
        const uint32_t n = edits(list->params[i].name, name);
        if (n < fewest) {
            fewest = n;
            nearest = list->params[i].name;
        }
    }
    return attn_fail(err, ATTN_INVALID, "%s: unknown parameter \"%s\"; %s%s%s", who, name,
                     nearest ? "the nearest is \"" : "it takes none", nearest ? nearest : "",
                     nearest ? "\"" : "");
}
