#include "params.h"

#include "error.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

int params_match(const char *pattern, const char *name)
{
    const char *star = strchr(pattern, '*');
    if (!star)
        return strcmp(pattern, name) == 0;
    size_t head = (size_t)(star - pattern), tail = strlen(star + 1), length = strlen(name);
    return length >= head + tail && memcmp(pattern, name, head) == 0 &&
           strcmp(name + length - tail, star + 1) == 0;
}

static int smaller(int a, int b)
{
    return a < b ? a : b;
}

/* Insertions, deletions and replacements that make `name` of `pattern`; a run of characters that
 * '*' stands for counts as two.  Longer texts than the table are no near matches of anything. */
static int params_distance(const char *pattern, const char *name)
{
    enum { LONGEST = 120, RUN = 2 };
    int row[LONGEST + 1];
    size_t columns = strlen(name);
    if (columns > LONGEST)
        return LONGEST;
    for (size_t j = 0; j <= columns; j++)
        row[j] = (int)j;
    for (const char *p = pattern; *p; p++) {
        int diagonal = row[0], run = LONGEST;
        row[0] += *p != '*';
        for (size_t j = 1; j <= columns; j++) {
            int above = row[j];
            run = smaller(run, diagonal + RUN);
            if (*p == '*')
                row[j] = smaller(above, run);
            else
                row[j] = smaller(diagonal + (*p != name[j - 1]), smaller(above, row[j - 1]) + 1);
            diagonal = above;
        }
    }
    return row[columns];
}

static const char *params_kind(uint32_t kind)
{
    switch (kind) {
    case ATTN_PARAM_INT:
        return "a whole number";
    case ATTN_PARAM_FLOAT:
        return "a number";
    case ATTN_PARAM_TEXT:
        return "a text";
    case ATTN_PARAM_TENSOR:
        return "a tensor";
    default:
        return "of no known kind";
    }
}

static const attn_param_info *params_known(const attn_param_list *known, const char *name)
{
    for (uint32_t i = 0; i < known->count; i++)
        if (params_match(known->params[i].name, name))
            return &known->params[i];
    return NULL;
}

/* A misspelling leaves two letters of three as they were; one letter may always be wrong. */
static int params_near(const char *pattern, const char *name, int distance)
{
    size_t longer = strlen(pattern) > strlen(name) ? strlen(pattern) : strlen(name);
    return distance <= 1 || (size_t)distance <= longer / 3;
}

/* All of them, where none is near. */
static attn_status params_list(const attn_param_list *known, const char *name, const char *who,
                               attn_error *err)
{
    char all[512] = "none";
    size_t used = 0;
    for (uint32_t i = 0; i < known->count && used < sizeof all; i++)
        used += (size_t)snprintf(all + used, sizeof all - used, "%s\"%s\"", i ? ", " : "",
                                 known->params[i].name);
    return attn_fail(err, ATTN_INVALID, "%s: unknown parameter \"%s\"; it takes %s", who, name,
                     all);
}

static attn_status params_unknown(const attn_param_list *known, const char *name, const char *who,
                                  attn_error *err)
{
    const char *nearest = NULL;
    int best = 0;
    for (uint32_t i = 0; i < known->count; i++) {
        int distance = params_distance(known->params[i].name, name);
        if (!nearest || distance < best) {
            nearest = known->params[i].name;
            best = distance;
        }
    }
    if (!nearest || !params_near(nearest, name, best))
        return params_list(known, name, who, err);
    return attn_fail(err, ATTN_INVALID, "%s: unknown parameter \"%s\"; the nearest is \"%s\"", who,
                     name, nearest);
}

attn_status params_check_name(const attn_param_list *known, const char *name, const char *who,
                              attn_error *err)
{
    if (!name)
        return attn_fail(err, ATTN_INVALID, "%s: a parameter has no name", who);
    return params_known(known, name) ? ATTN_OK : params_unknown(known, name, who, err);
}

attn_status params_check(const attn_param_list *known, const attn_param *params, uint32_t n,
                         const char *who, attn_error *err)
{
    if (n && !params)
        return attn_fail(err, ATTN_INVALID, "%s: %" PRIu32 " parameters at NULL", who, n);
    for (uint32_t i = 0; i < n; i++) {
        const attn_param *p = &params[i];
        attn_status status = params_check_name(known, p->name, who, err);
        if (status != ATTN_OK)
            return status;
        const attn_param_info *info = params_known(known, p->name);
        int fits =
            p->kind == info->kind || (info->kind == ATTN_PARAM_FLOAT && p->kind == ATTN_PARAM_INT);
        if (!fits)
            return attn_fail(err, ATTN_INVALID, "%s: parameter \"%s\" is %s, expected %s", who,
                             p->name, params_kind(p->kind), params_kind(info->kind));
        if ((p->kind == ATTN_PARAM_TENSOR && !p->tensor) ||
            (p->kind == ATTN_PARAM_TEXT && !p->text))
            return attn_fail(err, ATTN_INVALID, "%s: parameter \"%s\" is NULL", who, p->name);
        if (params_find(params, i, p->name))
            return attn_fail(err, ATTN_INVALID, "%s: parameter \"%s\" is given twice", who,
                             p->name);
    }
    return ATTN_OK;
}

const attn_param *params_find(const attn_param *params, uint32_t n, const char *name)
{
    for (uint32_t i = 0; i < n; i++)
        if (params[i].name && strcmp(params[i].name, name) == 0)
            return &params[i];
    return NULL;
}

attn_status params_int(const attn_param *params, uint32_t n, const char *name, int64_t low,
                       int64_t high, int64_t *value, const char *who, attn_error *err)
{
    const attn_param *p = params_find(params, n, name);
    if (!p)
        return ATTN_OK;
    if (p->kind != ATTN_PARAM_INT)
        return attn_fail(err, ATTN_INVALID, "%s: parameter \"%s\" is %s, expected %s", who, name,
                         params_kind(p->kind), params_kind(ATTN_PARAM_INT));
    if (p->i < low || p->i > high)
        return attn_fail(err, ATTN_INVALID,
                         "%s: parameter \"%s\" is %" PRId64 ", expected %" PRId64 " to %" PRId64,
                         who, name, p->i, low, high);
    *value = p->i;
    return ATTN_OK;
}

attn_status params_float(const attn_param *params, uint32_t n, const char *name, double *value,
                         const char *who, attn_error *err)
{
    const attn_param *p = params_find(params, n, name);
    if (!p)
        return ATTN_OK;
    if (p->kind != ATTN_PARAM_INT && p->kind != ATTN_PARAM_FLOAT)
        return attn_fail(err, ATTN_INVALID, "%s: parameter \"%s\" is %s, expected %s", who, name,
                         params_kind(p->kind), params_kind(ATTN_PARAM_FLOAT));
    double given = p->kind == ATTN_PARAM_INT ? (double)p->i : p->f;
    if (!isfinite(given))
        return attn_fail(err, ATTN_INVALID, "%s: parameter \"%s\" is %g, expected a finite number",
                         who, name, given);
    *value = given;
    return ATTN_OK;
}
