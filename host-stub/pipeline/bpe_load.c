/* Reading a vocabulary and its merges. */
#include "bpe_private.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file_bytes.h"
#include "json_file.h"

/* Token ids index an embedding table; this bounds the table that a hostile file could ask for. */
enum { HIGHEST_ID = 1 << 24 };

/* CLIP's vocabulary: 512 byte symbols, 48894 merges, 2 specials; later lines are not read, as the
 * reference does not read them. */
enum { MOST_MERGES = 49152 - 256 - 2 };

/* CLIP's merges take half a megabyte. */
enum { MOST_BYTES = 64 << 20 };

/* Bytes that print show themselves; the others take the code points from 256 on, in order. */
static size_t byte_spell(int byte, char *out)
{
    int code = 256;
    for (int i = 0; i <= byte; i++) {
        int prints = (i >= '!' && i <= '~') || (i >= 0xA1 && i <= 0xAC) || i >= 0xAE;
        if (i == byte && prints) {
            code = byte;
        } else if (i < byte && !prints) {
            code++;
        }
    }
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    out[0] = (char)(0xC0 | code >> 6);
    out[1] = (char)(0x80 | (code & 0x3F));
    return 2;
}

static int bytes_add(bpe *b)
{
    for (int byte = 0; byte < 256; byte++) {
        char text[8];
        size_t n = byte_spell(byte, text);
        memcpy(text + n, BPE_WORD_END, sizeof BPE_WORD_END);
        int64_t within = string_add(&b->symbols, text, n);
        int64_t last = string_add(&b->symbols, text, n + strlen(BPE_WORD_END));
        if (within < 0 || last < 0) {
            return -1;
        }
        b->byte_symbols[0][byte] = (uint32_t)within;
        b->byte_symbols[1][byte] = (uint32_t)last;
    }
    return 0;
}

/* Adds the merge of a line's two words; lines that do not hold two can never match and are left
 * out, and of a pair that comes twice the later rank counts, as in the reference. */
static int merge_add(bpe *b, char *line, uint32_t rank)
{
    char *save = NULL;
    char *left = strtok_r(line, " \t\r\f\v", &save);
    char *right = left ? strtok_r(NULL, " \t\r\f\v", &save) : NULL;
    if (!right || strtok_r(NULL, " \t\r\f\v", &save)) {
        return 0;
    }
    size_t size = strlen(left) + strlen(right) + 1;
    int64_t first = string_add(&b->symbols, left, strlen(left));
    int64_t second = string_add(&b->symbols, right, strlen(right));
    int64_t merged = STRING_ABSENT;
    char *both = malloc(size);
    if (both) {
        snprintf(both, size, "%s%s", left, right);
        merged = string_add(&b->symbols, both, size - 1);
    }
    free(both);
    if (first < 0 || second < 0 || merged < 0) {
        return -1;
    }
    bpe_merge *slot = &b->merges[bpe_merge_slot(b, (uint32_t)first, (uint32_t)second)];
    *slot = (bpe_merge){(uint32_t)first, (uint32_t)second, (uint32_t)merged, rank, 1};
    return 0;
}

/* text is changed. */
static attn_status merges_add(bpe *b, char *text, const char *path, attn_error *err)
{
    size_t lines = 1;
    for (char *c = text; *c && lines <= MOST_MERGES; c++) {
        lines += *c == '\n';
    }
    for (b->merge_slots = 64; b->merge_slots < 2 * lines; b->merge_slots *= 2) {
    }
    b->merges = calloc(b->merge_slots, sizeof *b->merges);
    int bad = !b->merges;
    char *line = text + strspn(text, " \t\r\n\f\v");
    for (uint32_t number = 0; line && !bad && number <= MOST_MERGES; number++) {
        char *end = strchr(line, '\n');
        if (end) {
            *end = 0;
        }
        bad = number && merge_add(b, line, number - 1);
        line = end ? end + 1 : NULL;
    }
    return bad ? attn_fail(err, ATTN_NOMEM, "%s: no memory for its merges", path) : ATTN_OK;
}

/* Adds the vocabulary's texts to the symbols and finds its highest id. */
static attn_status vocab_add(bpe *b, json_t *vocab, const char *path, int32_t *highest,
                             attn_error *err)
{
    const char *token;
    json_t *value;
    *highest = -1;
    json_object_foreach(vocab, token, value)
    {
        json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || id > HIGHEST_ID) {
            return attn_fail(err, ATTN_INVALID, "%s: token %s: its id must be from 0 to %d", path,
                             token, HIGHEST_ID);
        }
        if (string_add(&b->symbols, token, strlen(token)) < 0) {
            return attn_fail(err, ATTN_NOMEM, "%s: no memory for its tokens", path);
        }
        *highest = id > *highest ? (int32_t)id : *highest;
    }
    b->vocab_size = json_object_size(vocab);
    return ATTN_OK;
}

/* Once every symbol has its number: which of them have ids. */
static int ids_fill(bpe *b, json_t *vocab, int32_t highest)
{
    const char *token;
    json_t *value;
    b->by_id_count = (uint32_t)(highest + 1);
    b->ids = malloc(b->symbols.count * sizeof *b->ids);
    b->by_id = malloc((b->by_id_count + 1) * sizeof *b->by_id);
    if (!b->ids || !b->by_id) {
        return -1;
    }
    for (uint32_t i = 0; i < b->symbols.count; i++) {
        b->ids[i] = -1;
    }
    for (uint32_t i = 0; i < b->by_id_count; i++) {
        b->by_id[i] = BPE_NONE;
    }
    json_object_foreach(vocab, token, value)
    {
        int64_t symbol = string_find(&b->symbols, token, strlen(token));
        int32_t id = (int32_t)json_integer_value(value);
        b->ids[symbol] = id;
        b->by_id[id] = (uint32_t)symbol;
    }
    return 0;
}

/* merges: their text, which is changed, or NULL: the file's. */
static attn_status bpe_load(bpe *b, json_t *vocab, const char *vocab_path, char *merges,
                            const char *merges_path, attn_error *err)
{
    int32_t highest = -1;
    uint8_t *own = NULL;
    size_t bytes;
    if (bytes_add(b)) {
        return attn_fail(err, ATTN_NOMEM, "%s: no memory for its tokens", vocab_path);
    }
    attn_status status = vocab_add(b, vocab, vocab_path, &highest, err);
    if (!status && !merges) {
        status = file_bytes_read(merges_path, MOST_BYTES, "a list of merges", &own, &bytes, err);
    }
    if (!status) {
        status = merges_add(b, merges ? merges : (char *)own, merges_path, err);
    }
    if (!status && ids_fill(b, vocab, highest)) {
        status = attn_fail(err, ATTN_NOMEM, "%s: no memory for its tokens", vocab_path);
    }
    free(own);
    return status;
}

static attn_status bpe_make(json_t *vocab, const char *vocab_path, char *merges,
                            const char *merges_path, bpe **out, attn_error *err)
{
    bpe *b = calloc(1, sizeof *b);
    attn_status status = b ? bpe_load(b, vocab, vocab_path, merges, merges_path, err)
                           : attn_fail(err, ATTN_NOMEM, "%s: no memory for it", vocab_path);
    if (status) {
        bpe_close(b);
        return status;
    }
    *out = b;
    return ATTN_OK;
}

attn_status bpe_open(const char *vocab_path, const char *merges_path, bpe **out, attn_error *err)
{
    json_t *vocab = NULL;
    *out = NULL;
    attn_status status = json_file_read(vocab_path, &vocab, err);
    if (!status) {
        status = bpe_make(vocab, vocab_path, NULL, merges_path, out, err);
    }
    json_decref(vocab);
    return status;
}

/* -- a vocabulary that follows from its merges ------------------------------------------------ */

static const char clip_name[] = "CLIP's vocabulary";

static int token_add(json_t *vocab, const char *text, size_t bytes)
{
    char token[256];
    if (bytes >= sizeof token) {
        return -1;
    }
    memcpy(token, text, bytes);
    token[bytes] = 0;
    return json_object_set_new(vocab, token, json_integer((json_int_t)json_object_size(vocab)));
}

/* The bytes that print, then the others, each within a word and each at its end. */
static int bytes_number(json_t *vocab)
{
    int bad = 0;
    for (int ending = 0; ending < 2; ending++) {
        for (int others = 0; others < 2; others++) {
            for (int byte = 0; byte < 256 && !bad; byte++) {
                int prints =
                    (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
                char text[8];
                size_t n = byte_spell(byte, text);
                memcpy(text + n, BPE_WORD_END, sizeof BPE_WORD_END);
                n += ending ? strlen(BPE_WORD_END) : 0;
                bad = (!prints) == others ? token_add(vocab, text, n) : 0;
            }
        }
    }
    return bad;
}

/* What each line's two words make together, in the lines' order. */
static int merges_number(json_t *vocab, const char *merges)
{
    int bad = 0;
    const char *line = strchr(merges, '\n');
    for (line = line ? line + 1 : ""; *line && !bad;) {
        char both[256];
        size_t n = strcspn(line, "\n");
        size_t left = strcspn(line, " \n");
        if (n >= sizeof both || left >= n) {
            return -1;
        }
        memcpy(both, line, left);
        memcpy(both + left, line + left + 1, n - left - 1);
        bad = token_add(vocab, both, n - 1);
        line += n + (line[n] == '\n');
    }
    return bad;
}

attn_status bpe_open_clip(const char *merges, size_t bytes, bpe **out, attn_error *err)
{
    static const char *const specials[] = {"<|startoftext|>", "<|endoftext|>"};
    json_t *vocab = json_object();
    char *text = malloc(bytes + 1);
    int bad = !vocab || !text;
    *out = NULL;
    if (!bad) {
        memcpy(text, merges, bytes);
        text[bytes] = 0;
        bad = bytes_number(vocab) || merges_number(vocab, text) ||
              token_add(vocab, specials[0], strlen(specials[0])) ||
              token_add(vocab, specials[1], strlen(specials[1]));
    }
    attn_status status = bad ? attn_fail(err, ATTN_NOMEM, "no memory for %s", clip_name)
                             : bpe_make(vocab, clip_name, text, clip_name, out, err);
    free(text);
    json_decref(vocab);
    return status;
}
