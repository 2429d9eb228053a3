/* weights_private.h: what weights.c, weights_file.c and weights_lora.c share. */
#ifndef ATTNPLUG_MODEL_WEIGHTS_PRIVATE_H
#define ATTNPLUG_MODEL_WEIGHTS_PRIVATE_H

#include "weights.h"

#include <stdarg.h>
#include <stdio.h>

struct weights {
    struct compute *compute;
    struct tensor_set *tensors;
    uint8_t *asked; /* one for each of the tensors */
    struct item *items;
    size_t n_items, capacity;
    attn_status status;
    attn_error *err;
    struct lora_set *loras; /* NULL: none */
    enum lora_component component;
    bool seldom;
};

enum { NAME_BYTES = 256 };

#define FORMAT_NAME(name, format)                                                                  \
    char name[NAME_BYTES];                                                                         \
    do {                                                                                           \
        va_list args_;                                                                             \
        va_start(args_, format);                                                                   \
        (void)vsnprintf(name, sizeof(name), format, args_);                                        \
        va_end(args_);                                                                             \
    } while (0)

/* `host` on the device, in the element type `dtype` (NULL: the compute's); belongs to the weights.
 */
attn_tensor weights_upload(struct weights *w, const attn_tensor *host, const attn_tensor *dtype);
/* weights_file.c: the tensor of that name and exactly that shape in host memory.  Absent after a
 * failure. */
attn_tensor weights_file_tensor(struct weights *w, const char *name, uint32_t rank,
                                const int64_t *shape);
/* A file's tensor in host memory, under a shape of as many elements: where it lies, or a copy where
 * its elements do not lie as they may.  Absent after a failure. */
attn_tensor weights_view(struct weights *w, const safetensors_tensor *t, uint32_t rank,
                         const int64_t *shape);
/* "[320, 4, 3, 3]", cut to what fits; returns text. */
enum { SHAPE_BYTES = 128 };
const char *shape_text(char text[SHAPE_BYTES], uint32_t rank, const int64_t *shape);

/* weights_lora.c: the terms of a module that was just read, whose weight is there. */
void weights_lora_linear(struct weights *w, attn_linear *linear, const char *name);
void weights_lora_conv(struct weights *w, struct conv_desc *desc, const char *name);

#endif
