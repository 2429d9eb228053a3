/* DDPM: Ho et al., "Denoising Diffusion Probabilistic Models", arXiv 2006.11239, formulas 6 and 7,
 * as in diffusers v0.26.3 src/diffusers/schedulers/scheduling_ddpm.py.
 *
 * variance_type "fixed_large_log" is computed as "fixed_large": diffusers takes the square root of
 * a logarithm, which is no number. */
#include "scheduler_private.h"

#include <math.h>

enum { X0, ARRAYS };
enum { SMALL, LARGE, LEARNED };

typedef struct {
    int variance;
} ddpm;

static const option_name variance_names[] = {
    {"fixed_small", SMALL},
    {"fixed_small_log", SMALL},
    {"fixed_large", LARGE},
    {"fixed_large_log", LARGE},
    {"learned", LEARNED},
    {"learned_range", LEARNED},
    {NULL, 0},
};

static attn_status ddpm_configure(scheduler *s, json_t *config, attn_error *err)
{
    ddpm *own = s->own;
    attn_status status =
        option_choice(config, "variance_type", variance_names, 0, SMALL, &own->variance, err);
    if (!status && own->variance == LEARNED) {
        status = option_fail("variance_type", json_object_get(config, "variance_type"),
                             "a fixed one: a model of Stable Diffusion predicts no variance", err);
    }
    s->arrays = ARRAYS;
    return status;
}

static int ddpm_wants_noise(const scheduler *s, size_t index, float eta)
{
    (void)eta;
    return s->timesteps[index] > 0;
}

static attn_status ddpm_step(scheduler *s, const scheduler_call *call, float *out, attn_error *err)
{
    const ddpm *own = s->own;
    float *x0 = state_array(s, X0);
    int64_t now = (int64_t)s->timesteps[call->index];
    int64_t next = now - s->train_steps / s->steps;
    float alpha = s->alphas_cumprod[now];
    float alpha_next = next >= 0 ? s->alphas_cumprod[next] : 1.0f;
    float spread = 1.0f - alpha;
    float ratio = alpha / alpha_next;
    float beta = 1.0f - ratio;
    float keep_x0 = sqrtf(alpha_next) * beta / spread;
    float keep_sample = sqrtf(ratio) * (1.0f - alpha_next) / spread;
    float variance = (1.0f - alpha_next) / spread * beta;
    variance = variance < 1e-20f ? 1e-20f : variance;
    float deviation = sqrtf(own->variance == LARGE ? beta : variance);
    int drawn = ddpm_wants_noise(s, call->index, 0);
    (void)err;
    scheduler_predict(s, call->index, call->model_output, call->sample, x0, NULL, call->n);
    x0_limit(s, call, x0);
    for (size_t i = 0; i < call->n; i++) {
        out[i] = keep_x0 * x0[i] + keep_sample * call->sample[i];
        if (drawn) {
            out[i] += deviation * call->noise[i];
        }
    }
    return ATTN_OK;
}

const scheduler_class scheduler_ddpm = {
    .name = "DDPMScheduler",
    .order = 1,
    .own_size = sizeof(ddpm),
    .takes = TAKES_ZERO_SNR | TAKES_THRESHOLD | TAKES_CLIP | CLIPS_UNLESS_TOLD | TAKES_SPACING,
    .betas = BETAS_COMMON | BETAS_SIGMOID,
    .predictions = PREDICT_ANY,
    .beta_start = 0.0001,
    .beta_end = 0.02,
    .spacing = SPACING_LEADING,
    .configure = ddpm_configure,
    .set_timesteps = timesteps_plain,
    .step = ddpm_step,
    .wants_noise = ddpm_wants_noise,
};
