/* DDIM: Song et al., "Denoising Diffusion Implicit Models", arXiv 2010.02502, formulas 12 and 16,
 * as in diffusers v0.26.3 src/diffusers/schedulers/scheduling_ddim.py. Thresholding and
 * zero-terminal-SNR rescaling are refused by name. */
#include "scheduler_private.h"

#include <math.h>
#include <stdlib.h>

typedef struct {
    float final_alpha; /* what stands for alphas_cumprod before timestep 0 */
    int clip;
    float clip_range;
} ddim;

static attn_status ddim_configure(scheduler *s, json_t *config, attn_error *err)
{
    static const char *const refused[] = {"thresholding", "rescale_betas_zero_snr", NULL};
    int to_one = 0;
    int clip = 0;
    double range = 0;
    for (int i = 0; refused[i]; i++) {
        int set = 0;
        attn_status status = option_flag(config, refused[i], 0, &set, err);
        if (status || set) {
            return status ? status
                          : attn_fail(err, ATTN_UNSUPPORTED,
                                      "%s: true is not supported by DDIMScheduler, expected false",
                                      refused[i]);
        }
    }
    attn_status status = option_flag(config, "set_alpha_to_one", 1, &to_one, err);
    if (!status) {
        status = option_flag(config, "clip_sample", 1, &clip, err);
    }
    if (!status) {
        status = option_number(config, "clip_sample_range", 1.0, &range, err);
    }
    if (status) {
        return status;
    }
    ddim *own = malloc(sizeof *own);
    if (!own) {
        return attn_fail(err, ATTN_NOMEM, "no memory for a scheduler");
    }
    *own = (ddim){.final_alpha = to_one ? 1.0f : s->alphas_cumprod[0],
                  .clip = clip,
                  .clip_range = (float)range};
    s->own = own;
    return ATTN_OK;
}

static int ddim_wants_noise(const scheduler *s, size_t index, float eta)
{
    (void)s;
    (void)index;
    return eta > 0;
}

static attn_status ddim_step(scheduler *s, const scheduler_call *call, float *out, attn_error *err)
{
    const ddim *own = s->own;
    int64_t now = s->timesteps[call->index];
    int64_t next = now - s->train_steps / s->steps;
    float alpha = s->alphas_cumprod[now];
    float alpha_next = next >= 0 ? s->alphas_cumprod[next] : own->final_alpha;
    float variance = (1.0f - alpha_next) / (1.0f - alpha) * (1.0f - alpha / alpha_next);
    float deviation = call->eta * sqrtf(variance);
    float signal = sqrtf(alpha_next);
    float direction = sqrtf(1.0f - alpha_next - deviation * deviation);
    if (isnan(direction)) {
        return attn_fail(err, ATTN_INVALID, "eta: %g asks for more noise than timestep %lld has",
                         (double)call->eta, (long long)now);
    }
    for (size_t i = 0; i < call->n; i++) {
        float x0 = 0;
        float noise = 0;
        prediction_split(s->prediction, sqrtf(alpha), sqrtf(1.0f - alpha), call->model_output[i],
                         call->sample[i], &x0, &noise);
        /* Comparisons rather than fmin: a NaN has to stay one. */
        if (own->clip && x0 > own->clip_range) {
            x0 = own->clip_range;
        } else if (own->clip && x0 < -own->clip_range) {
            x0 = -own->clip_range;
        }
        out[i] = signal * x0 + direction * noise;
        if (call->eta > 0) {
            out[i] += deviation * call->noise[i];
        }
    }
    return ATTN_OK;
}

static void ddim_destroy(scheduler *s)
{
    free(s->own);
}

const scheduler_class scheduler_ddim = {
    .name = "DDIMScheduler",
    .configure = ddim_configure,
    .set_timesteps = timesteps_space,
    .step = ddim_step,
    .wants_noise = ddim_wants_noise,
    .destroy = ddim_destroy,
};
