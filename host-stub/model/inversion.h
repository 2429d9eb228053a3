/* inversion.h: files of textual inversion: vectors of new tokens (diffusers v0.26.3,
 * loaders/textual_inversion.py), among them Custom Diffusion's modifier tokens.
 *
 * In safetensors form they are
 *   {"<token>": [n, width] or [width]}            diffusers; one tensor, its name is the token
 *   {"emb_params": [n, width]}                    Automatic1111, whose token is the file's name
 *   {"string_to_param.*": [n, width], ...}        Automatic1111's older form, flattened, or its "*"
 *                                                 alone; the token is metadata "name", else the
 *                                                 file's name
 * A token of the caller's takes the place of any of them.
 */
#ifndef ATTNPLUG_MODEL_INVERSION_H
#define ATTNPLUG_MODEL_INVERSION_H

#include "safetensors.h"

struct inversion {
    char *token;
    float *vectors; /* [n, width] */
    int64_t n, width;
};

/* path: the file, or a folder that has learned_embeds.safetensors.  token: NULL for the file's. */
attn_status inversion_read(const char *path, const char *token, struct inversion *out,
                           attn_error *err);
void inversion_clear(struct inversion *inversion);

#endif
