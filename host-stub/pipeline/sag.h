/* Self-attention guidance: what is blurred, and how the latents are degraded for the second pass.
 *
 * Hong et al., "Improving Sample Quality of Diffusion Models Using Self-Attention Guidance",
 * arXiv 2210.00939; the arithmetic of diffusers v0.26.3
 * src/diffusers/pipelines/stable_diffusion_sag/pipeline_stable_diffusion_sag.py (sag_masking).
 * All arrays are fp32 and row-major. None may overlap another unless said. */
#ifndef ATTNPLUG_PIPELINE_SAG_H
#define ATTNPLUG_PIPELINE_SAG_H

#include <stddef.h>
#include <stdint.h>

/* Cells whose mass lies this near the threshold may fall on either side in another program. */
#define SAG_NEAR_THRESHOLD 1e-4f

enum {
    SAG_BLUR_WIDTH = 9,
    SAG_BLUR_RADIUS = SAG_BLUR_WIDTH / 2,
    /* Reflecting a side of 4 would need a fifth cell to reflect. */
    SAG_LEAST_SIDE = SAG_BLUR_RADIUS + 1
};

/* mask[i] = key_mass[i] > 1, strictly, for n cells. Returns how many cells lie within
 * SAG_NEAR_THRESHOLD of the threshold. */
size_t sag_mask(const float *key_mass, uint8_t *mask, size_t n);

/* Gaussian blur, 9 x 9, sigma 1, borders reflected without repeating the edge, of `planes` planes
 * [planes, height, width]. Both sides must be SAG_LEAST_SIDE at least. `row` holds height * width
 * floats of scratch. */
void sag_blur(const float *in, float *out, float *row, size_t planes, size_t height, size_t width);

/* The nearest cell of `in_side` for cell `index` of `out_side`, as torch's nearest interpolation
 * chooses it. */
size_t sag_nearest(size_t index, size_t in_side, size_t out_side);

/* out = mask ? blurred : x0. x0, blurred and out [channels, height, width] (out may be either of
 * them), mask [mask_height, mask_width] taken to height x width by sag_nearest. */
void sag_blend(const float *x0, const float *blurred, const uint8_t *mask, float *out,
               size_t channels, size_t height, size_t width, size_t mask_height, size_t mask_width);

/* out[i] = uncond[i] + guidance_scale * (cond[i] - uncond[i]); out may be either input. */
void guidance_combine(const float *uncond, const float *cond, float guidance_scale, float *out,
                      size_t n);

/* out[i] += sag_scale * (reference[i] - degraded[i]). */
void sag_combine(const float *reference, const float *degraded, float sag_scale, float *out,
                 size_t n);

#endif
