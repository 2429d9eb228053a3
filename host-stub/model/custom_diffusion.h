/* custom_diffusion.h: a file of Custom Diffusion weights (diffusers v0.26.3,
 * loaders/unet.py, load_attn_procs): parameters for the processor custom_diffusion, layer by layer.
 *
 *   <layer>.processor.to_k_custom_diffusion.weight
 *   <layer>.processor.to_v_custom_diffusion.weight
 *   <layer>.processor.to_q_custom_diffusion.weight        optional
 *   <layer>.processor.to_out_custom_diffusion.0.weight, .bias
 *
 * Layers that the file does not have stay as they are: safetensors cannot hold the empty entries
 * that diffusers writes for them.
 */
#ifndef ATTNPLUG_MODEL_CUSTOM_DIFFUSION_H
#define ATTNPLUG_MODEL_CUSTOM_DIFFUSION_H

#include "attn_layer.h"
#include "compute.h"

struct custom_diffusion;

/* path: the file, or a folder that has pytorch_custom_diffusion_weights.safetensors.  The tensors
 * are uploaded to `c`, which outlives it. */
attn_status custom_diffusion_open(struct compute *c, const char *path,
                                  struct custom_diffusion **out, attn_error *err);
void custom_diffusion_close(struct custom_diffusion *cd); /* NULL does nothing */

/* The file's parameters for a layer are put behind those of *spec, which then names the processor
 * custom_diffusion unless it names one of its kind.  named: the caller chose spec's processor
 * itself; another kind is then INVALID.  Layers without weights stay as they are.  What spec points
 * to lives as long as `cd`. */
attn_status custom_diffusion_choose(struct custom_diffusion *cd, const char *layer, int32_t named,
                                    attn_layer_spec *spec, attn_error *err);
/* INVALID where no layer asked for weights of the file; ATTN_UNSUPPORTED names another family by
 * the width of its keys. */
attn_status custom_diffusion_done(const struct custom_diffusion *cd, attn_error *err);
attn_status custom_diffusion_family(const struct custom_diffusion *cd, int64_t cross_dim,
                                    attn_error *err);

#endif
