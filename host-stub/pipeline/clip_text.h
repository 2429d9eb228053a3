/* From a prompt to the pieces that byte-pair encoding works on.
 *
 * What transformers v4.37.2 src/transformers/models/clip/tokenization_clip.py does without ftfy:
 * BasicTokenizer(strip_accents=False, do_split_on_punc=False), then CLIP's pattern. Categories and
 * case come from utf8proc: characters that its Unicode version and Python's do not share may
 * differ. */
#ifndef ATTNPLUG_PIPELINE_CLIP_TEXT_H
#define ATTNPLUG_PIPELINE_CLIP_TEXT_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"

/* Receives one piece, UTF-8, not NUL-terminated. A status other than ATTN_OK stops the walk. */
typedef attn_status (*clip_piece_fn)(void *ctx, const char *piece, size_t bytes, attn_error *err);

/* ATTN_INVALID, naming the byte's offset, where `text` is not UTF-8 (RFC 3629). */
attn_status clip_text_check(const char *text, size_t bytes, attn_error *err);

/* Cleans, composes (NFC), splits at whitespace and lower-cases `text`, which must be UTF-8, and
 * hands the pieces of each word to `take` in order. */
attn_status clip_text_pieces(const char *text, size_t bytes, clip_piece_fn take, void *ctx,
                             attn_error *err);

#endif
