/* tokenizer_add.c: tokens that a textual inversion brings. */
#include "tokenizer_private.h"

#include <stdlib.h>
#include <string.h>

static attn_status name_check(const tokenizer *t, const char *token, attn_error *err)
{
    if (added_find(t, token) || bpe_token_id(t->bpe, token) >= 0) {
        return attn_fail(err, ATTN_INVALID,
                         "token %s is in the tokenizer's vocabulary already; another name can be"
                         " given",
                         token);
    }
    return ATTN_OK;
}

/* "<token>" or "<token>_<i>" into `name`, for the caller to free. */
static attn_status name_make(const char *token, int32_t i, char **name, attn_error *err)
{
    const int made = i ? asprintf(name, "%s_%d", token, (int)i) : asprintf(name, "%s", token);
    if (made < 0) {
        *name = NULL;
        return attn_fail(err, ATTN_NOMEM, "no memory for token %s", token);
    }
    return ATTN_OK;
}

static attn_status names_check(const tokenizer *t, const char *token, int32_t n, attn_error *err)
{
    attn_status status = ATTN_OK;
    /* "<token>_1" would be taken for the second vector of "<token>", so it is looked for even
     * where there is one vector alone. */
    for (int32_t i = 0; i < (n > 1 ? n : 2) && !status; i++) {
        char *name;
        status = name_make(token, i, &name, err);
        if (!status) {
            status = name_check(t, name, err);
        }
        free(name);
    }
    return status;
}

attn_status tokenizer_add(tokenizer *t, const char *token, int32_t first, int32_t n,
                          attn_error *err)
{
    attn_status status = names_check(t, token, n, err);
    if (status) {
        return status;
    }
    added_token *longer = realloc(t->added, (t->added_count + (size_t)n) * sizeof *longer);
    if (!longer) {
        return attn_fail(err, ATTN_NOMEM, "no memory for token %s", token);
    }
    t->added = longer;
    const size_t before = t->added_count;
    for (int32_t i = 0; i < n && !status; i++) {
        char *name;
        status = name_make(token, i, &name, err);
        if (!status) {
            longer[t->added_count++] = (added_token){
                .content = name, .bytes = strlen(name), .id = first + i, .more = i ? 0 : n - 1};
        }
    }
    while (status && t->added_count > before) {
        free(longer[--t->added_count].content);
    }
    if (!status && first + n - 1 > t->highest) {
        t->highest = first + n - 1;
    }
    return status;
}
