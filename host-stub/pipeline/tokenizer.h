/* CLIP's tokenizer: the ids that transformers v4.37.2's slow CLIPTokenizer gives where ftfy is not
 * installed (src/transformers/models/clip/tokenization_clip.py and tokenization_utils.py). */
#ifndef ATTNPLUG_PIPELINE_TOKENIZER_H
#define ATTNPLUG_PIPELINE_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"

typedef struct tokenizer tokenizer;

/* Reads a diffusers tokenizer folder: vocab.json, merges.txt, tokenizer_config.json, and where they
 * are there special_tokens_map.json and added_tokens.json. Errors name the file. Any thread. */
attn_status tokenizer_open(const char *folder, tokenizer **out, attn_error *err);

/* CLIP's own, which the library carries (clip/README.md), for models whose files have none: 77
 * tokens a prompt.  openclip: padded with token 0, "!", as Stable Diffusion 2.x is; else with the
 * end token.  Any thread. */
enum { TOKENIZER_CLIP_TOKENS = 49408 };
attn_status tokenizer_open_clip(int32_t openclip, tokenizer **out, attn_error *err);

/* NULL is fine. */
void tokenizer_close(tokenizer *t);

/* How many ids a prompt has: model_max_length, 77 for CLIP. */
size_t tokenizer_max_length(const tokenizer *t);

/* Ids are below this. */
int32_t tokenizer_highest_id(const tokenizer *t);

/* A new token that stands for n ids, from `first` on; of several, "<token>_1" and so on stand for
 * one each (diffusers v0.26.3, loaders/textual_inversion.py).  ATTN_INVALID where one of the names
 * is a token already. */
attn_status tokenizer_add(tokenizer *t, const char *token, int32_t first, int32_t n,
                          attn_error *err);

/* ids [tokenizer_max_length]: the start token, the prompt's, the end token, then the pad token to
 * the end. What does not fit is cut; then *cut, where it is wanted (it may be NULL), is the cut
 * part as text, for the caller to free, else NULL. ATTN_INVALID names the offset of the first byte
 * that is not UTF-8. Any thread. */
attn_status tokenizer_encode(const tokenizer *t, const char *text, int32_t *ids, char **cut,
                             attn_error *err);

#endif
