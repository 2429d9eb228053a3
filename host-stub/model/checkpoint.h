/* checkpoint.h: a whole Stable Diffusion 1.x or 2.x model in one safetensors file with the tensor
 * names of its authors' code (CompVis/stable-diffusion, Stability-AI/stablediffusion), as people
 * share them.
 *
 * Such a file says nothing but names and shapes: what config.json would say is read from those,
 * with what diffusers v0.26.3 takes for granted
 * (pipelines/stable_diffusion/convert_from_ckpt.py): 8 heads where transformers are wrapped in
 * convolutions (1.x), heads of 64 where in linears (2.x); 32 groups; text encoders with heads
 * of 64; a context of 1024 means 2.x's velocity prediction at 768 pixels.
 */
#ifndef ATTNPLUG_MODEL_CHECKPOINT_H
#define ATTNPLUG_MODEL_CHECKPOINT_H

#include "json_file.h"
#include "model_source.h"
#include "safetensors.h"

struct checkpoint;

/* ema: the UNet's averaged weights, model_ema.*, in place of the last ones; an error where the file
 * has none.  ATTN_UNSUPPORTED names another family of models, or a pickle. */
attn_status checkpoint_open(const char *path, int32_t ema, struct checkpoint **out,
                            attn_error *err);
void checkpoint_close(struct checkpoint *c); /* NULL does nothing */

const safetensors *checkpoint_file(const struct checkpoint *c);

/* What the part's config.json (scheduler_config.json) says in diffusers' folder format; the
 * caller's to json_decref. */
attn_status checkpoint_config(const struct checkpoint *c, enum model_part part, json_t **out,
                              attn_error *err);

/* Hands over each tensor of a part under diffusers' name, with diffusers' shape: views of the file.
 * A name that fits no pattern is handed over as it is, OpenCLIP's last layer, which 2.x does not
 * use, not at all. */
typedef attn_status (*checkpoint_take)(void *ctx, const char *name, const safetensors_tensor *t);
attn_status checkpoint_each(const struct checkpoint *c, enum model_part part, checkpoint_take take,
                            void *ctx, attn_error *err);

#endif
