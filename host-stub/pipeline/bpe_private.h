#ifndef ATTNPLUG_PIPELINE_BPE_PRIVATE_H
#define ATTNPLUG_PIPELINE_BPE_PRIVATE_H

#include "bpe.h"

#define BPE_WORD_END "</w>"
#define BPE_NONE     UINT32_MAX

/* Symbols are numbers in `bpe.symbols`: two ways to spell a token by merges are the same token. */
typedef struct {
    uint32_t left, right, merged, rank;
    uint32_t used;
} bpe_merge;

struct bpe {
    string_table symbols;
    int32_t *ids;    /* [symbols.count], -1: not in the vocabulary */
    uint32_t *by_id; /* [by_id_count] symbol of an id, BPE_NONE: no token has it */
    uint32_t by_id_count;
    size_t vocab_size;
    bpe_merge *merges; /* [merge_slots], a power of two, never full */
    size_t merge_slots;
    uint32_t byte_symbols[2][256]; /* a byte within a word, a byte that ends one */
};

/* The slot that holds the pair, or the free one where it belongs. */
size_t bpe_merge_slot(const bpe *b, uint32_t left, uint32_t right);

#endif
