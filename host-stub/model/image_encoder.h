/* image_encoder.h: CLIPVisionModelWithProjection (transformers v4.37.2,
 * models/clip/modeling_clip.py), which an IP-Adapter sees its pictures through. */
#ifndef ATTNPLUG_MODEL_IMAGE_ENCODER_H
#define ATTNPLUG_MODEL_IMAGE_ENCODER_H

#include "compute.h"
#include "model_source.h"

struct image_encoder;

/* Reads config.json and model.safetensors of the source's folder; op is for its attention, NULL:
 * auto. */
attn_status image_encoder_open_source(struct compute *c, const struct model_source *source,
                                      const char *op, struct image_encoder **out, attn_error *err);
attn_status image_encoder_open(struct compute *c, const char *folder, const char *op,
                               struct image_encoder **out, attn_error *err);
void image_encoder_close(struct image_encoder *e); /* NULL does nothing */

int64_t image_encoder_size(const struct image_encoder *e);   /* pixels a side */
int64_t image_encoder_width(const struct image_encoder *e);  /* of the hidden states */
int64_t image_encoder_tokens(const struct image_encoder *e); /* of the hidden states */
int64_t image_encoder_embeds(const struct image_encoder *e); /* length of image_embeds */

/* pixels [batch, 3, size, size].  embeds [batch, image_encoder_embeds]: image_embeds; penultimate
 * [batch, tokens, width]: hidden_states[-2].  Either may be NULL.  One run at a time. */
attn_status image_encoder_run(struct image_encoder *e, int64_t batch, const float *pixels,
                              float *embeds, float *penultimate, attn_error *err);

#endif
