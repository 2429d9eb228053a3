/* Noise schedules of training, rounded where torch and numpy round, so that a run here has the
 * coefficients that it has there. */
#include "scheduler_private.h"

#include <math.h>
#include <stdlib.h>

static const option_name names[] = {{"linear", BETAS_LINEAR},
                                    {"scaled_linear", BETAS_SCALED_LINEAR},
                                    {"squaredcos_cap_v2", BETAS_SQUARED_COSINE},
                                    {"sigmoid", BETAS_SIGMOID},
                                    {"exp", BETAS_EXP},
                                    {NULL, 0}};

typedef struct {
    int kind;
    double start, end;
    const json_t *trained; /* NULL unless they are given one by one */
    int zero_snr;
} beta_options;

/* torch.linspace in fp32: from both ends to the middle, each number rounded once. */
static float linspace(float start, float end, int64_t count, int64_t i)
{
    float step = count > 1 ? (end - start) / (float)(count - 1) : 0.0f;
    return i < count / 2 || count == 1 ? fmaf(step, (float)i, start)
                                       : fmaf(-step, (float)(count - 1 - i), end);
}

/* How much signal is left at t of 1. */
static double signal_left(int kind, double t)
{
    if (kind == BETAS_EXP) {
        return exp(t * -12.0);
    }
    double c = cos((t + 0.008) / 1.008 * 3.14159265358979323846 / 2);
    return c * c;
}

static float beta_at(const beta_options *o, int64_t count, int64_t i)
{
    if (o->trained) {
        return (float)json_number_value(json_array_get(o->trained, (size_t)i));
    }
    if (o->kind == BETAS_SQUARED_COSINE || o->kind == BETAS_EXP) {
        double now = signal_left(o->kind, (double)i / (double)count);
        double next = signal_left(o->kind, (double)(i + 1) / (double)count);
        return (float)fmin(1 - next / now, 0.999);
    }
    if (o->kind == BETAS_SCALED_LINEAR) {
        float root = linspace((float)sqrt(o->start), (float)sqrt(o->end), count, i);
        return root * root;
    }
    if (o->kind == BETAS_SIGMOID) {
        float share = 1.0f / (1.0f + expf(-linspace(-6, 6, count, i)));
        return share * (float)(o->end - o->start) + (float)o->start;
    }
    return linspace((float)o->start, (float)o->end, count, i);
}

static attn_status trained_check(const scheduler *s, const json_t *trained, attn_error *err)
{
    if (!json_is_array(trained) || (int64_t)json_array_size(trained) != s->train_steps) {
        return attn_fail(
            err, ATTN_INVALID,
            "trained_betas: %zu numbers, expected as many as num_train_timesteps, %lld",
            json_array_size(trained), (long long)s->train_steps);
    }
    for (size_t i = 0; i < json_array_size(trained); i++) {
        const json_t *beta = json_array_get(trained, i);
        double number = json_number_value(beta);
        if (!json_is_number(beta) || !(number > 0 && number < 1)) {
            char name[64];
            snprintf(name, sizeof name, "trained_betas[%zu]", i);
            return option_fail(name, beta, "a number between 0 and 1", err);
        }
    }
    return ATTN_OK;
}

static attn_status options_fill(const scheduler *s, json_t *config, beta_options *o,
                                attn_error *err)
{
    attn_status status = option_choice(config, "beta_schedule", names, (int)s->class->betas,
                                       BETAS_LINEAR, &o->kind, err);
    if (!status) {
        status = option_number(config, "beta_start", s->class->beta_start, 1e-12, 0.999999,
                               &o->start, err);
    }
    if (!status) {
        status =
            option_number(config, "beta_end", s->class->beta_end, 1e-12, 0.999999, &o->end, err);
    }
    if (!status && s->class->takes & TAKES_ZERO_SNR) {
        status = option_flag(config, "rescale_betas_zero_snr", 0, &o->zero_snr, err);
    }
    o->trained = json_object_get(config, "trained_betas");
    if (json_is_null(o->trained)) {
        o->trained = NULL;
    }
    return !status && o->trained ? trained_check(s, o->trained, err) : status;
}

/* torch.cumprod multiplies fp32 factors in double and rounds what it stores. */
static void cumulate(float *alphas, int64_t count)
{
    double product = 1;
    for (int64_t i = 0; i < count; i++) {
        product *= alphas[i];
        alphas[i] = (float)product;
    }
}

/* Lin et al. 2023, arXiv 2305.08891, algorithm 1: the last alphas_cumprod becomes 0, the first
 * stays. Takes and leaves alphas, not yet multiplied. */
static void alphas_rescale(float *alphas, int64_t count)
{
    cumulate(alphas, count);
    float first = sqrtf(alphas[0]);
    float last = sqrtf(alphas[count - 1]);
    float before = 0;
    for (int64_t i = 0; i < count; i++) {
        float root = (sqrtf(alphas[i]) - last) * (first / (first - last));
        float bar = root * root;
        /* To betas and back, which rounds once more. */
        alphas[i] = 1.0f - (1.0f - (i ? bar / before : bar));
        before = bar;
    }
}

attn_status betas_fill(scheduler *s, json_t *config, attn_error *err)
{
    beta_options o = {0};
    size_t count = (size_t)s->train_steps;
    attn_status status = options_fill(s, config, &o, err);
    if (status) {
        return status;
    }
    s->alphas_cumprod = malloc(count * sizeof *s->alphas_cumprod);
    s->train_sigmas = malloc(count * sizeof *s->train_sigmas);
    if (!s->alphas_cumprod || !s->train_sigmas) {
        return attn_fail(err, ATTN_NOMEM, "no memory for %zu training steps", count);
    }
    for (size_t i = 0; i < count; i++) {
        s->alphas_cumprod[i] = 1.0f - beta_at(&o, s->train_steps, (int64_t)i);
    }
    if (o.zero_snr) {
        alphas_rescale(s->alphas_cumprod, s->train_steps);
    }
    cumulate(s->alphas_cumprod, s->train_steps);
    if (o.zero_snr && s->class->takes & TINY_LAST_ALPHA) {
        s->alphas_cumprod[count - 1] = 0x1p-24f;
    }
    for (size_t i = 0; i < count; i++) {
        float alpha = s->alphas_cumprod[i];
        s->train_sigmas[i] = sqrtf((1.0f - alpha) / alpha);
    }
    return ATTN_OK;
}
