/* sag_image_prompts.h: IP-Adapters in a pipeline: their files, the image encoder that they see
 * through, and the pictures of a run. */
#ifndef ATTNPLUG_PIPELINE_SAG_IMAGE_PROMPTS_H
#define ATTNPLUG_PIPELINE_SAG_IMAGE_PROMPTS_H

#include "image_encoder.h"
#include "image_processor.h"
#include "ip_adapter.h"
#include "sag_private.h"

struct image_prompts {
    uint32_t n, layers; /* adapters; cross-attention layers that were given weights */
    struct ip_adapter *adapters[IMAGE_PROMPTS];
    double scales[IMAGE_PROMPTS];
    char scale_names[IMAGE_PROMPTS][16]; /* "scale.0": parameters of the processor */
    char k_names[IMAGE_PROMPTS][32], v_names[IMAGE_PROMPTS][32];
    struct image_encoder *encoder; /* NULL: none was found; embeddings only */
    struct image_processor processor;
    struct layer_params *params; /* of the layers, while the UNet has them */
};

/* Before the UNet is loaded: adapters and encoder.  m->pictures stays NULL where none are asked
 * for. */
attn_status image_prompts_open(struct sag_components *m, const attn_sag_open_options *o,
                               attn_error *err);
void image_prompts_close(struct image_prompts *p); /* NULL does nothing; so it is below */

/* While the UNet is loaded, layer by layer in diffusers' order: the adapters are for prompt
 * embeddings of that width; cross-attention layers get the processor ip_adapter with the adapters'
 * weights; the adapters had no more layers. */
attn_status image_prompts_family(const struct image_prompts *p, int64_t cross, attn_error *err);
attn_status image_prompts_choose(struct image_prompts *p, attn_registry *registry,
                                 const char *layer, attn_layer_spec *spec, attn_error *err);
attn_status image_prompts_done(const struct image_prompts *p, attn_error *err);

/* sag_see.c: a run's pictures, or what it brings in their place, as tokens: job->pictures. */
attn_status job_see(struct sag_job *job);

#endif
