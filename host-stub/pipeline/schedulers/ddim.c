/* DDIM: Song et al., "Denoising Diffusion Implicit Models", arXiv 2010.02502, formulas 12 and 16,
 * as in diffusers v0.26.3 src/diffusers/schedulers/scheduling_ddim.py. */
#include "scheduler_private.h"

#include <math.h>

enum { X0, NOISE, ARRAYS };

static attn_status ddim_configure(scheduler *s, json_t *config, attn_error *err)
{
    (void)config;
    (void)err;
    s->arrays = ARRAYS;
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
    float *x0 = state_array(s, X0);
    float *noise = state_array(s, NOISE);
    int64_t now = (int64_t)s->timesteps[call->index];
    int64_t next = now - s->train_steps / s->steps;
    float alpha = s->alphas_cumprod[now];
    float alpha_next = next >= 0 ? s->alphas_cumprod[next] : s->final_alpha;
    float variance = (1.0f - alpha_next) / (1.0f - alpha) * (1.0f - alpha / alpha_next);
    float deviation = call->eta * sqrtf(variance);
    float signal = sqrtf(alpha_next);
    float direction = sqrtf(1.0f - alpha_next - deviation * deviation);
    if (isnan(direction)) {
        return attn_fail(err, ATTN_INVALID, "eta: %g asks for more noise than timestep %lld has",
                         (double)call->eta, (long long)now);
    }
    /* The noise is that of the prediction itself, whatever x0 is limited to. */
    scheduler_predict(s, call->index, call->model_output, call->sample, x0, noise, call->n);
    x0_limit(s, call, x0);
    for (size_t i = 0; i < call->n; i++) {
        out[i] = signal * x0[i] + direction * noise[i];
        if (call->eta > 0) {
            out[i] += deviation * call->noise[i];
        }
    }
    return ATTN_OK;
}

const scheduler_class scheduler_ddim = {
    .name = "DDIMScheduler",
    .order = 1,
    .takes = TAKES_ZERO_SNR | TAKES_THRESHOLD | TAKES_CLIP | CLIPS_UNLESS_TOLD | TAKES_SPACING |
             TAKES_ONE | ONE_UNLESS_TOLD,
    .betas = BETAS_COMMON,
    .predictions = PREDICT_ANY,
    .beta_start = 0.0001,
    .beta_end = 0.02,
    .spacing = SPACING_LEADING,
    .configure = ddim_configure,
    .set_timesteps = timesteps_plain,
    .step = ddim_step,
    .wants_noise = ddim_wants_noise,
};
