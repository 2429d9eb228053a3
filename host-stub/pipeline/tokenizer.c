#include "tokenizer_private.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "clip_text.h"
#include "clip_vocabulary.h"

char *folder_path(const char *folder, const char *name)
{
    size_t size = strlen(folder) + strlen(name) + 2;
    char *path = malloc(size);
    if (path) {
        snprintf(path, size, "%s/%s", folder, name);
    }
    return path;
}

static void highest_find(tokenizer *t)
{
    t->highest = bpe_highest_id(t->bpe);
    for (size_t i = 0; i < t->added_count; i++) {
        t->highest = t->added[i].id > t->highest ? t->added[i].id : t->highest;
    }
}

static attn_status tokenizer_load(tokenizer *t, const char *folder, attn_error *err)
{
    attn_status status = ATTN_NOMEM;
    char *vocab = folder_path(folder, "vocab.json");
    char *merges = folder_path(folder, "merges.txt");
    if (!vocab || !merges) {
        attn_fail(err, ATTN_NOMEM, "%s: no memory to read it", folder);
    } else {
        status = bpe_open(vocab, merges, &t->bpe, err);
    }
    free(merges);
    free(vocab);
    if (!status) {
        status = tokenizer_configure(t, folder, err);
    }
    if (!status) {
        highest_find(t);
    }
    return status;
}

attn_status tokenizer_open(const char *folder, tokenizer **out, attn_error *err)
{
    *out = NULL;
    tokenizer *t = calloc(1, sizeof *t);
    attn_status status = t ? tokenizer_load(t, folder, err)
                           : attn_fail(err, ATTN_NOMEM, "%s: no memory to read it", folder);
    if (status) {
        tokenizer_close(t);
        return status;
    }
    *out = t;
    return ATTN_OK;
}

attn_status tokenizer_open_clip(int32_t openclip, tokenizer **out, attn_error *err)
{
    const size_t bytes = (size_t)(clip_merges_end - clip_merges);
    *out = NULL;
    tokenizer *t = calloc(1, sizeof *t);
    attn_status status = t ? bpe_open_clip(clip_merges, bytes, &t->bpe, err)
                           : attn_fail(err, ATTN_NOMEM, "no memory for a tokenizer");
    if (!status) {
        status = tokenizer_configure_clip(t, openclip ? "!" : "<|endoftext|>", err);
    }
    if (status) {
        tokenizer_close(t);
        return status;
    }
    highest_find(t);
    *out = t;
    return ATTN_OK;
}

void tokenizer_close(tokenizer *t)
{
    if (!t) {
        return;
    }
    for (size_t i = 0; i < t->added_count; i++) {
        free(t->added[i].content);
    }
    free(t->added);
    bpe_close(t->bpe);
    free(t);
}

size_t tokenizer_max_length(const tokenizer *t)
{
    return t->max_length;
}

int32_t tokenizer_highest_id(const tokenizer *t)
{
    return t->highest;
}

typedef struct {
    const tokenizer *tokenizer;
    id_list *ids;
} encoding;

static attn_status piece_take(void *ctx, const char *piece, size_t bytes, attn_error *err)
{
    /* Specials in other letter case have been lower-cased by now and stand for themselves. */
    static const char *const whole[] = {"<|startoftext|>", "<|endoftext|>"};
    encoding *e = ctx;
    for (int i = 0; i < 2; i++) {
        if (bytes == strlen(whole[i]) && memcmp(piece, whole[i], bytes) == 0) {
            int32_t id = bpe_token_id(e->tokenizer->bpe, whole[i]);
            const added_token *added = added_find(e->tokenizer, whole[i]);
            id = added ? added->id : id >= 0 ? id : e->tokenizer->unknown;
            return id_list_add(e->ids, id) ? attn_fail(err, ATTN_NOMEM, "no memory for tokens")
                                           : ATTN_OK;
        }
    }
    return bpe_encode(e->tokenizer->bpe, piece, bytes, e->tokenizer->unknown, e->ids, err);
}

/* The longest added token at the front of `text`, NULL where there is none. */
static const added_token *added_at(const tokenizer *t, const char *text)
{
    const added_token *best = NULL;
    for (size_t i = 0; i < t->added_count; i++) {
        const added_token *token = &t->added[i];
        if ((!best || token->bytes > best->bytes) &&
            strncmp(text, token->content, token->bytes) == 0) {
            best = token;
        }
    }
    return best;
}

/* Whether the token stands where it may: a single-word one wants spaces or text ends around it. */
static int added_stands(const added_token *token, const char *start, const char *at)
{
    char after = at[token->bytes];
    return !token->single_word || ((at == start || at[-1] == ' ') && (!after || after == ' '));
}

/* Cuts the added tokens out and encodes what lies between them. Stripping of whitespace beside a
 * token needs no code: encoding drops it anyway. */
static attn_status text_encode(encoding *e, const char *text, attn_error *err)
{
    attn_status status = ATTN_OK;
    const char *from = text;
    const char *at = text;
    while (*at && !status) {
        const added_token *token = added_at(e->tokenizer, at);
        if (!token || !added_stands(token, text, at)) {
            at++;
            continue;
        }
        status = clip_text_pieces(from, (size_t)(at - from), piece_take, e, err);
        for (int32_t i = 0; i <= token->more && !status; i++) {
            if (id_list_add(e->ids, token->id + i)) {
                status = attn_fail(err, ATTN_NOMEM, "no memory for tokens");
            }
        }
        at += token->bytes;
        from = at;
    }
    return status ? status : clip_text_pieces(from, (size_t)(at - from), piece_take, e, err);
}

attn_status tokenizer_ids(const tokenizer *t, const char *text, id_list *ids, attn_error *err)
{
    encoding e = {.tokenizer = t, .ids = ids};
    attn_status status = clip_text_check(text, strlen(text), err);
    return status ? status : text_encode(&e, text, err);
}

static void text_replace(char *text, const char *from, const char *to)
{
    size_t from_bytes = strlen(from);
    size_t to_bytes = strlen(to); /* never longer */
    for (char *at = text; (at = strstr(at, from)); at += to_bytes) {
        for (size_t i = 0; i < to_bytes; i++) {
            at[i] = to[i];
        }
        memmove(at + to_bytes, at + from_bytes, strlen(at + from_bytes) + 1);
    }
}

/* The text of an id that the vocabulary lacks: an added token's; "" where there is none. */
static const char *added_text(const tokenizer *t, int32_t id)
{
    for (size_t i = 0; i < t->added_count; i++) {
        if (t->added[i].id == id) {
            return t->added[i].content;
        }
    }
    return "";
}

/* Takes whitespace off the end of out[used]; how much is left. */
static size_t end_strip(const char *out, size_t used)
{
    while (used && isspace((unsigned char)out[used - 1])) {
        used--;
    }
    return used;
}

/* Appends one id; added tokens stand between spaces. */
static size_t id_decode(const tokenizer *t, int32_t id, char *out, size_t used)
{
    if (bpe_token_text(t->bpe, id)) {
        return used + bpe_decode(t->bpe, id, out + used);
    }
    const char *text = added_text(t, id);
    const size_t bytes = strlen(text);
    used = end_strip(out, used);
    if (used) {
        out[used++] = ' ';
    }
    memcpy(out + used, text, bytes);
    used += bytes;
    out[used++] = ' ';
    return used;
}

/* The text of `count` ids as transformers decodes them, spaces before punctuation taken out; NULL
 * when memory ran out. */
static char *ids_decode(const tokenizer *t, const int32_t *ids, size_t count)
{
    static const char *const tidy[][2] = {
        {" .", "."},     {" ?", "?"},   {" !", "!"},   {" ,", ","},     {" ' ", "'"},
        {" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
    };
    size_t capacity = 1;
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        const char *text = bpe_token_text(t->bpe, ids[i]);
        capacity += strlen(text ? text : added_text(t, ids[i])) + 2;
    }
    char *out = malloc(capacity);
    if (!out) {
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        used = id_decode(t, ids[i], out, used);
    }
    out[end_strip(out, used)] = 0;
    for (size_t i = 0; i < sizeof tidy / sizeof *tidy; i++) {
        text_replace(out, tidy[i][0], tidy[i][1]);
    }
    return out;
}

attn_status tokenizer_encode(const tokenizer *t, const char *text, int32_t *ids, char **cut,
                             attn_error *err)
{
    id_list all = {0};
    size_t room = t->max_length - 2;
    if (cut) {
        *cut = NULL;
    }
    attn_status status = tokenizer_ids(t, text, &all, err);
    if (status) {
        goto done;
    }
    size_t kept = all.count < room ? all.count : room;
    ids[0] = t->start;
    for (size_t i = 0; i < kept; i++) {
        ids[i + 1] = all.ids[i];
    }
    ids[kept + 1] = t->end;
    for (size_t i = kept + 2; i < t->max_length; i++) {
        ids[i] = t->pad;
    }
    if (cut && kept < all.count) {
        *cut = ids_decode(t, all.ids + kept, all.count - kept);
        if (!*cut) {
            status = attn_fail(err, ATTN_NOMEM, "no memory for the cut part of a prompt");
        }
    }
done:
    id_list_free(&all);
    return status;
}
