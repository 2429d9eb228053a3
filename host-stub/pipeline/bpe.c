#include "bpe_private.h"

#include <stdlib.h>
#include <string.h>

int id_list_add(id_list *list, int32_t id)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 128;
        int32_t *ids = realloc(list->ids, capacity * sizeof *ids);
        if (!ids) {
            return -1;
        }
        list->ids = ids;
        list->capacity = capacity;
    }
    list->ids[list->count++] = id;
    return 0;
}

void id_list_free(id_list *list)
{
    free(list->ids);
    *list = (id_list){0};
}

void bpe_close(bpe *b)
{
    if (!b) {
        return;
    }
    string_table_free(&b->symbols);
    free(b->ids);
    free(b->by_id);
    free(b->merges);
    free(b);
}

int32_t bpe_token_id(const bpe *b, const char *token)
{
    int64_t symbol = string_find(&b->symbols, token, strlen(token));
    return symbol < 0 ? -1 : b->ids[symbol];
}

size_t bpe_vocab_size(const bpe *b)
{
    return b->vocab_size;
}

int32_t bpe_highest_id(const bpe *b)
{
    return (int32_t)b->by_id_count - 1;
}

const char *bpe_token_text(const bpe *b, int32_t id)
{
    if (id < 0 || (uint32_t)id >= b->by_id_count || b->by_id[id] == BPE_NONE) {
        return NULL;
    }
    return b->symbols.entries[b->by_id[id]].text;
}

size_t bpe_merge_slot(const bpe *b, uint32_t left, uint32_t right)
{
    uint64_t key = (uint64_t)left << 32 | right;
    size_t slot = (size_t)((key * UINT64_C(0x9E3779B97F4A7C15)) >> 32) & (b->merge_slots - 1);
    while (b->merges[slot].used &&
           (b->merges[slot].left != left || b->merges[slot].right != right)) {
        slot = (slot + 1) & (b->merge_slots - 1);
    }
    return slot;
}

/* The merge of lowest rank among the word's neighbours, NULL where none can be merged. */
static const bpe_merge *merge_choose(const bpe *b, const uint32_t *word, size_t n)
{
    const bpe_merge *best = NULL;
    for (size_t i = 0; i + 1 < n; i++) {
        const bpe_merge *merge = &b->merges[bpe_merge_slot(b, word[i], word[i + 1])];
        if (merge->used && (!best || merge->rank < best->rank)) {
            best = merge;
        }
    }
    return best;
}

static size_t merge_apply(const bpe_merge *merge, uint32_t *word, size_t n)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (i + 1 < n && word[i] == merge->left && word[i + 1] == merge->right) {
            word[kept++] = merge->merged;
            i++;
        } else {
            word[kept++] = word[i];
        }
    }
    return kept;
}

attn_status bpe_encode(const bpe *b, const char *piece, size_t bytes, int32_t unknown,
                       id_list *list, attn_error *err)
{
    attn_status status = ATTN_OK;
    uint32_t *word = malloc((bytes + 1) * sizeof *word);
    if (!word) {
        return attn_fail(err, ATTN_NOMEM, "no memory for a word of %zu bytes", bytes);
    }
    for (size_t i = 0; i < bytes; i++) {
        word[i] = b->byte_symbols[i + 1 == bytes][(uint8_t)piece[i]];
    }
    size_t n = bytes;
    const bpe_merge *merge;
    while (n > 1 && (merge = merge_choose(b, word, n))) {
        n = merge_apply(merge, word, n);
    }
    for (size_t i = 0; i < n && !status; i++) {
        int32_t id = b->ids[word[i]] >= 0 ? b->ids[word[i]] : unknown;
        if (id_list_add(list, id)) {
            status = attn_fail(err, ATTN_NOMEM, "no memory for %zu tokens", list->count);
        }
    }
    free(word);
    return status;
}

/* One character of a token's text as the byte that it shows; -1 for any other character. */
static int byte_of(const bpe *b, const char *text, size_t *used)
{
    for (int byte = 0; byte < 256; byte++) {
        const string_entry *entry = &b->symbols.entries[b->byte_symbols[0][byte]];
        if (strncmp(text, entry->text, entry->bytes) == 0) {
            *used = entry->bytes;
            return byte;
        }
    }
    *used = 1;
    return -1;
}

size_t bpe_decode(const bpe *b, int32_t id, char *out)
{
    const char *text = bpe_token_text(b, id);
    size_t count = 0;
    while (text && *text) {
        size_t used = strlen(BPE_WORD_END);
        if (strcmp(text, BPE_WORD_END) == 0) {
            out[count++] = ' ';
        } else {
            int byte = byte_of(b, text, &used);
            out[count] = (char)byte;
            count += byte >= 0;
        }
        text += used;
    }
    return count;
}
