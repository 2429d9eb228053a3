/* safety_checker.h: StableDiffusionSafetyChecker (diffusers v0.26.3,
 * pipelines/stable_diffusion/safety_checker.py): which pictures come too near to concepts that it
 * was made to keep back. */
#ifndef ATTNPLUG_MODEL_SAFETY_CHECKER_H
#define ATTNPLUG_MODEL_SAFETY_CHECKER_H

#include "compute.h"
#include "model_source.h"

struct safety_checker;

enum { SAFETY_CONCEPTS = 17, SAFETY_SPECIAL = 3 };

attn_status safety_checker_open(struct compute *c, const struct model_source *source,
                                const char *op, struct safety_checker **out, attn_error *err);
void safety_checker_close(struct safety_checker *s); /* NULL does nothing */

int64_t safety_checker_size(const struct safety_checker *s); /* pixels a side */

/* pixels [batch, 3, size, size]; flagged [batch]: 1 where a picture is to be kept back, else 0;
 * cosines [batch, SAFETY_SPECIAL + SAFETY_CONCEPTS], special care first, or NULL.  One run at a
 * time. */
attn_status safety_checker_run(struct safety_checker *s, int64_t batch, const float *pixels,
                               uint8_t *flagged, float *cosines, attn_error *err);

#endif
