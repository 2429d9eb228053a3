/* Byte-level byte-pair encoding with word ends, as CLIP uses it.
 *
 * Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units", arXiv 1508.07909,
 * over bytes shown as printable characters; transformers v4.37.2
 * src/transformers/models/clip/tokenization_clip.py (bytes_to_unicode, bpe). */
#ifndef ATTNPLUG_PIPELINE_BPE_H
#define ATTNPLUG_PIPELINE_BPE_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "string_table.h"

/* Grows as ids are added; zeroed: empty. */
typedef struct {
    int32_t *ids;
    size_t count, capacity;
} id_list;

int id_list_add(id_list *list, int32_t id); /* 0, or -1 when memory ran out */
void id_list_free(id_list *list);

typedef struct bpe bpe;

/* Reads a vocabulary (JSON, token to id) and a list of merges (text, a pair a line after the
 * first). ATTN_INVALID names the file and what it holds wrong. */
attn_status bpe_open(const char *vocab_path, const char *merges_path, bpe **out, attn_error *err);

/* CLIP's own kind of vocabulary, whose tokens follow from its merges (text as in a merges file,
 * `bytes` of it): the 256 bytes, those again at a word's end, each merge's result, the two
 * specials. */
attn_status bpe_open_clip(const char *merges, size_t bytes, bpe **out, attn_error *err);

/* NULL is fine. */
void bpe_close(bpe *b);

/* The id of a token as the vocabulary writes it, -1 where it has none. */
int32_t bpe_token_id(const bpe *b, const char *token);

/* How many tokens the vocabulary has. */
size_t bpe_vocab_size(const bpe *b);

/* The highest id in the vocabulary, -1 where it is empty. */
int32_t bpe_highest_id(const bpe *b);

/* Appends the ids of one piece's tokens, `unknown` for a token without one. */
attn_status bpe_encode(const bpe *b, const char *piece, size_t bytes, int32_t unknown,
                       id_list *list, attn_error *err);

/* The bytes that a vocabulary id stands for into `out`, which holds as many as the token's text
 * has; a word's end gives a space. Returns their count; 0 for an unknown id. */
size_t bpe_decode(const bpe *b, int32_t id, char *out);

/* The text of a vocabulary id, NULL where there is none. */
const char *bpe_token_text(const bpe *b, int32_t id);

#endif
