/* weights_private.h: what weights.c and weights_lora.c share. */
#ifndef ATTNPLUG_MODEL_WEIGHTS_PRIVATE_H
#define ATTNPLUG_MODEL_WEIGHTS_PRIVATE_H

#include "weights.h"

/* `host` on the device, in the element type `dtype` (NULL: the compute's); belongs to the weights.
 */
attn_tensor weights_upload(struct weights *w, const attn_tensor *host, const attn_tensor *dtype);
/* A file's tensor in host memory, under a shape of as many elements: where it lies, or a copy where
 * its elements do not lie as they may.  Absent after a failure. */
attn_tensor weights_view(struct weights *w, const safetensors_tensor *t, uint32_t rank,
                         const int64_t *shape);
/* "[320, 4, 3, 3]", cut to what fits; returns text. */
enum { SHAPE_BYTES = 128 };
const char *shape_text(char text[SHAPE_BYTES], uint32_t rank, const int64_t *shape);

struct lora_set *weights_loras(const struct weights *w, enum lora_component *component);

/* weights_lora.c: the terms of a module that was just read, whose weight is there. */
void weights_lora_linear(struct weights *w, attn_linear *linear, const char *name);
void weights_lora_conv(struct weights *w, struct conv_desc *desc, const char *name);

#endif
