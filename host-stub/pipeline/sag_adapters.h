/* sag_adapters.h: LoRA, Custom Diffusion and textual inversion in a pipeline's components. */
#ifndef ATTNPLUG_PIPELINE_SAG_ADAPTERS_H
#define ATTNPLUG_PIPELINE_SAG_ADAPTERS_H

#include "adapter_file.h"
#include "sag_private.h"

/* Before the models are loaded, with compute there: opens the files that they take weights from. */
attn_status adapters_open(struct sag_components *m, const attn_sag_open_options *o,
                          attn_error *err);
/* After tokenizer and text encoder: new tokens. */
attn_status inversions_load(struct sag_components *m, const attn_sag_open_options *o,
                            attn_error *err);
/* After all models: complains of what none of them took. */
attn_status adapters_done(const struct sag_components *m, const attn_sag_open_options *o,
                          attn_error *err);

#endif
