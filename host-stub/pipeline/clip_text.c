#include "clip_text.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "clip_lower.h"

enum { LETTER, NUMBER, OTHER, NOTHING };

attn_status clip_text_check(const char *text, size_t bytes, attn_error *err)
{
    const utf8proc_uint8_t *at = (const utf8proc_uint8_t *)text;
    size_t i = 0;
    while (i < bytes) {
        utf8proc_int32_t code;
        utf8proc_ssize_t used = utf8proc_iterate(at + i, (utf8proc_ssize_t)(bytes - i), &code);
        if (used < 1) {
            return attn_fail(err, ATTN_INVALID,
                             "the prompt is not UTF-8: byte 0x%02x at offset %zu", at[i], i);
        }
        i += (size_t)used;
    }
    return ATTN_OK;
}

static int is_cjk(int32_t c)
{
    static const int32_t ranges[][2] = {
        {0x4E00, 0x9FFF},   {0x3400, 0x4DBF},   {0x20000, 0x2A6DF}, {0x2A700, 0x2B73F},
        {0x2B740, 0x2B81F}, {0x2B820, 0x2CEAF}, {0xF900, 0xFAFF},   {0x2F800, 0x2FA1F},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        if (c >= ranges[i][0] && c <= ranges[i][1]) {
            return 1;
        }
    }
    return 0;
}

/* The category's first letter: 'L' letter, 'N' number, 'C' control, format and unassigned, ... */
static char category_major(int32_t c)
{
    return utf8proc_category_string(c)[0];
}

/* Controls dropped, spaces made plain, CJK characters set apart. Writes UTF-8 of at most three
 * times the bytes, and a NUL. */
static void clean(const char *text, size_t bytes, utf8proc_uint8_t *out)
{
    for (size_t i = 0; i < bytes;) {
        utf8proc_int32_t c = 0;
        i += (size_t)utf8proc_iterate((const utf8proc_uint8_t *)text + i,
                                      (utf8proc_ssize_t)(bytes - i), &c);
        if (c == ' ' || c == '\t' || c == '\n' || c == '\r' ||
            utf8proc_category(c) == UTF8PROC_CATEGORY_ZS) {
            *out++ = ' ';
        } else if (c == 0xFFFD || category_major(c) == 'C') {
            continue;
        } else if (is_cjk(c)) {
            *out++ = ' ';
            out += utf8proc_encode_char(c, out);
            *out++ = ' ';
        } else {
            out += utf8proc_encode_char(c, out);
        }
    }
    *out = 0;
}

/* Appends the code points of NFC(text[0 .. bytes)); 0, or -1 when memory ran out. */
static int compose_part(const utf8proc_uint8_t *text, size_t bytes, int32_t *codes, size_t *count)
{
    utf8proc_uint8_t *composed = NULL;
    utf8proc_ssize_t n =
        utf8proc_map(text, (utf8proc_ssize_t)bytes, &composed, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    for (utf8proc_ssize_t i = 0; i < n;)
        i += utf8proc_iterate(composed + i, n - i, &codes[(*count)++]);
    free(composed);
    return n < 0 ? -1 : 0;
}

/* The code points of NFC(text) as a fresh array and their count; NULL when memory ran out.  U+11A7,
 * the place before the first final consonant, composes with nothing, but utf8proc 2.8 takes it for
 * one and drops it after a Hangul syllable: the text is normalized in the parts between. */
static int32_t *compose(const utf8proc_uint8_t *text, size_t *count)
{
    static const char apart[] = "\xE1\x86\xA7";
    size_t bytes = strlen((const char *)text);
    int32_t *codes = malloc((3 * bytes + 1) * sizeof *codes); /* NFC at most triples */
    int failed = !codes;
    *count = 0;
    while (!failed && *text) {
        const char *next = strstr((const char *)text, apart);
        size_t part = next ? (size_t)(next - (const char *)text) : strlen((const char *)text);
        failed = compose_part(text, part, codes, count);
        text += part;
        if (next && !failed) {
            codes[(*count)++] = 0x11A7;
            text += sizeof apart - 1;
        }
    }
    if (failed) {
        free(codes);
        codes = NULL;
    }
    return codes;
}

static int kind_of(int32_t c)
{
    char major = category_major(c);
    if (c == 0x345) {
        return NOTHING; /* a case variant of iota, so the pattern, ignoring case, takes it nowhere
                         */
    }
    return major == 'L' ? LETTER : major == 'N' ? NUMBER : OTHER;
}

/* Code points of `word` that spell the ASCII `text`, its s also as long s; 0 where they do not. */
static size_t spells(const int32_t *word, size_t n, const char *text)
{
    size_t i = 0;
    for (; text[i]; i++) {
        if (i >= n || (word[i] != text[i] && !(text[i] == 's' && word[i] == 0x17F))) {
            return 0;
        }
    }
    return i;
}

/* Length of the piece at the front of a lower-case word; *skip: it belongs to no piece. */
static size_t piece_length(const int32_t *word, size_t n, int *skip)
{
    static const char *const fixed[] = {
        "<|startoftext|>", "<|endoftext|>", "'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
    *skip = 0;
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
        size_t length = spells(word, n, fixed[i]);
        if (length) {
            return length;
        }
    }
    int kind = kind_of(word[0]);
    size_t length = 1;
    *skip = kind == NOTHING;
    while (kind != NUMBER && kind != NOTHING && length < n && kind_of(word[length]) == kind) {
        length++;
    }
    return length;
}

static attn_status word_pieces(const int32_t *word, size_t n, char *utf8, clip_piece_fn take,
                               void *ctx, attn_error *err)
{
    attn_status status = ATTN_OK;
    for (size_t i = 0; i < n && !status;) {
        int skip;
        size_t length = piece_length(word + i, n - i, &skip);
        size_t bytes = 0;
        for (size_t k = i; k < i + length; k++) {
            bytes += (size_t)utf8proc_encode_char(word[k], (utf8proc_uint8_t *)utf8 + bytes);
        }
        if (!skip) {
            status = take(ctx, utf8, bytes, err);
        }
        i += length;
    }
    return status;
}

static int is_space(int32_t c)
{
    return c == ' ' || c == 0x2028 || c == 0x2029; /* what cleaning leaves of Python's whitespace */
}

attn_status clip_text_pieces(const char *text, size_t bytes, clip_piece_fn take, void *ctx,
                             attn_error *err)
{
    attn_status status = ATTN_OK;
    size_t count = 0;
    int32_t *codes = NULL;
    int32_t *lower = NULL;
    char *utf8 = NULL;
    utf8proc_uint8_t *cleaned = malloc(bytes * 3 + 1);
    if (cleaned) {
        clean(text, bytes, cleaned);
        codes = compose(cleaned, &count);
    }
    lower = malloc((count * 2 + 1) * sizeof *lower);
    utf8 = malloc(count * 8 + 1);
    if (!codes || !lower || !utf8) {
        status = attn_fail(err, ATTN_NOMEM, "no memory for a prompt of %zu bytes", bytes);
        goto done;
    }
    for (size_t i = 0; i < count && !status;) {
        size_t end = i;
        while (end < count && !is_space(codes[end])) {
            end++;
        }
        size_t n = clip_lower(codes + i, end - i, lower);
        status = word_pieces(lower, n, utf8, take, ctx, err);
        i = end + 1;
    }
done:
    free(utf8);
    free(lower);
    free(codes);
    free(cleaned);
    return status;
}
