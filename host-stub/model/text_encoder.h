/* text_encoder.h: CLIP's text model (transformers v4.37.2, models/clip/modeling_clip.py,
 * CLIPTextTransformer). */
#ifndef ATTNPLUG_MODEL_TEXT_ENCODER_H
#define ATTNPLUG_MODEL_TEXT_ENCODER_H

#include "layer.h"
#include "lora_set.h"
#include "model_source.h"

struct text_encoder;

/* op: for its causal attention; NULL: auto. */
attn_status text_encoder_open_source(struct compute *c, const struct model_source *source,
                                     const char *op, struct text_encoder **out, attn_error *err);
/* Of diffusers' text_encoder folder, no variant named. */
attn_status text_encoder_open(struct compute *c, const char *folder, const char *op,
                              struct text_encoder **out, attn_error *err);
/* The first with the low-rank terms of `loras` (NULL: none), which outlives it. */
attn_status text_encoder_open_adapted(struct compute *c, const struct model_source *source,
                                      const char *op, struct lora_set *loras,
                                      struct text_encoder **out, attn_error *err);
/* What low-rank terms are multiplied by in the runs that follow: one for each file. */
void text_encoder_set_scales(struct text_encoder *t, const float *scales, uint32_t n);
/* n more tokens, whose ids follow those that there are: vectors [n, width], copied.  *first is the
 * id of the first. */
attn_status text_encoder_extend(struct text_encoder *t, const float *vectors, int64_t n,
                                int32_t *first, attn_error *err);
void text_encoder_close(struct text_encoder *t);
void text_encoder_rest(const struct text_encoder *t); /* as weights_rest */
int64_t text_encoder_width(const struct text_encoder *t);
int64_t text_encoder_tokens(const struct text_encoder *t);     /* max_position_embeddings */
int64_t text_encoder_vocabulary(const struct text_encoder *t); /* ids, added ones too */
/* OpenCLIP's, of Stable Diffusion 2.x, told by its activation. */
int32_t text_encoder_openclip(const struct text_encoder *t);

/* ids [B, tokens] host int32.  clip_skip: hidden layers to leave out, then the final layer norm as
 * ever. out: host fp32 [B, tokens, width].  Plans for the shape as needed. */
attn_status text_encoder_run(struct text_encoder *t, int64_t batch, const int32_t *ids,
                             uint32_t clip_skip, float *out, attn_error *err);

#endif
