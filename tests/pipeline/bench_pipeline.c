/* Times of the pipeline on one device: the UNet alone, a step, a whole run, the memory.
 *
 *   bench_pipeline PLUGINS MODEL EMBEDS DEVICE DTYPE [SIZE [STEPS [RUNS]]]
 *
 * EMBEDS: a .safetensors file with prompt_embeds and negative_prompt_embeds (random_model.py writes
 * one).  Guidance 7.5, SAG 0.75, one picture of SIZE pixels a side (512), STEPS (25), medians of
 * RUNS (5).  Results on stdout as one JSON object. */
#include "safetensors.h"
#include "sag_private.h"

#include <stdio.h>
#include <stdlib.h>

enum { FORWARDS = 50, MOST_RUNS = 64 };

static int fail(const char *what, const char *text)
{
    (void)fprintf(stderr, "bench_pipeline: %s: %s\n", what, text);
    return 1;
}

static attn_tensor tensor_of_file(const safetensors *file, const char *name)
{
    const safetensors_tensor *t = safetensors_find(file, name);
    attn_tensor out = {0};
    return t ? host_f32(t->data, t->rank, t->shape) : out;
}

static int order(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, size_t n)
{
    qsort(x, n, sizeof *x, order);
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

/* -- the UNet alone ---------------------------------------------------------------------------- */

struct forward {
    struct unet *unet;
    struct unet_call call;
};

static attn_status forward_queue(attn_work *w, void *arg)
{
    struct forward *f = arg;
    return unet_forward(w, f->unet, &f->call);
}

static attn_status forward_run(attn_work *w, struct forward *f, int replay)
{
    const struct compute_api *api = work_compute(w)->api;
    return replay && api->replay ? api->replay(w, "bench", "", 0, forward_queue, f)
                                 : forward_queue(w, f);
}

static struct forward forward_take(attn_work *w, attn_sag *sag, int64_t batch, int64_t side,
                                   const attn_tensor *encoder)
{
    const attn_tensor f32 = {.code = ATTN_CODE_FLOAT, .bits = 32, .lanes = 1};
    const int64_t shape[] = {batch, side, side, unet_in_channels(sag->unet)};
    return (struct forward){sag->unet,
                            {.sample = work_take(w, NULL, 4, shape),
                             .timestep = work_take(w, &f32, 1, shape),
                             .encoder = *encoder,
                             .out = work_take(w, NULL, 4, shape)}};
}

/* Milliseconds of one forward pass, the median of FORWARDS; `replay` of a recording of it. */
static double forward_time(attn_sag *sag, int64_t batch, int64_t side, const attn_tensor *embeds,
                           int replay, attn_error *err)
{
    struct compute *c = sag->compute;
    struct pass *pass = NULL;
    attn_tensor encoder = {0};
    double times[FORWARDS];
    const int64_t shape[] = {batch, embeds->shape[1], embeds->shape[2]};
    size_t n = (size_t)(shape[1] * shape[2]);
    float *all = calloc((size_t)batch * n, sizeof *all);
    for (int64_t b = 0; b < batch && all; b++)
        memcpy(all + (size_t)b * n, embeds->data, n * sizeof *all);
    const attn_tensor host = host_f32(all, 3, shape);
    double ms = -1;
    if (!all || c->api->upload(c, &host, NULL, &encoder, err) || pass_create(c, &pass, err))
        goto done;
    attn_work *w = pass_dry(pass, err);
    struct forward f = forward_take(w, sag, batch, side, &encoder);
    forward_run(w, &f, 1);
    if (w->status || !(w = pass_real(pass, NULL, err)))
        goto done;
    f = forward_take(w, sag, batch, side, &encoder);
    c->plugin.fill(w, 0.5f, &f.call.sample);
    c->plugin.fill(w, 500.0f, &f.call.timestep);
    forward_run(w, &f, 0); /* keeps the keys of the embeddings */
    f.call.same_encoder = 1;
    forward_run(w, &f, replay);
    c->api->synchronize(w);
    for (int i = 0; i < FORWARDS && !w->status; i++) {
        double began = seconds_now();
        forward_run(w, &f, replay);
        c->api->synchronize(w);
        times[i] = 1e3 * (seconds_now() - began);
    }
    ms = w->status ? -1 : median(times, FORWARDS);
done:
    pass_destroy(pass);
    c->api->unload(c, &encoder);
    free(all);
    return ms;
}

/* -- whole runs -------------------------------------------------------------------------------- */

struct runs {
    double first, steps[MOST_RUNS], decode[MOST_RUNS], total[MOST_RUNS];
    uint64_t peak;
    float pixel;
};

static attn_status runs_do(attn_sag *sag, const attn_sag_run_options *o, size_t n, struct runs *r,
                           attn_error *err)
{
    attn_status status = ATTN_OK;
    for (size_t i = 0; i <= n && !status; i++) { /* the first plans and is not counted */
        attn_sag_result result = {.size = sizeof result};
        double began = seconds_now();
        status = attn_sag_run(sag, o, &result, err);
        double took = seconds_now() - began;
        if (!status && i == 0) {
            r->first = took;
        } else if (!status) {
            r->steps[i - 1] = result.seconds_steps;
            r->decode[i - 1] = result.seconds_decode;
            r->total[i - 1] = took;
        }
        if (!status) {
            r->peak = result.peak_bytes;
            r->pixel = ((const float *)result.images.data)[0];
        }
        attn_sag_result_free(&result);
    }
    return status;
}

static int number(char **argv, int argc, int at, int otherwise)
{
    int value = argc > at ? atoi(argv[at]) : otherwise;
    return value > 0 ? value : otherwise;
}

int main(int argc, char **argv)
{
    ATTN_ERROR_ON(err, 1024);
    if (argc < 6)
        return fail("usage", "PLUGINS MODEL EMBEDS DEVICE DTYPE [SIZE [STEPS [RUNS]]]");
    const char *paths[] = {argv[1]};
    const int size = number(argv, argc, 6, 512), steps = number(argv, argc, 7, 25);
    const int n = number(argv, argc, 8, 5) < MOST_RUNS ? number(argv, argc, 8, 5) : MOST_RUNS;
    attn_registry_options where = {.size = sizeof where,
                                   .flags = ATTN_REGISTRY_ONLY_PATHS | ATTN_REGISTRY_TRUST_ALL,
                                   .paths = paths,
                                   .n_paths = 1};
    attn_sag_open_options open = {
        .size = sizeof open, .model = argv[2], .device = argv[4], .dtype = argv[5]};
    attn_registry *registry = NULL;
    attn_sag *sag = NULL;
    safetensors *file = NULL;
    struct runs r = {0};
    double began = seconds_now();
    if (safetensors_open(argv[3], &file, &err) || attn_registry_open(&where, &registry, &err) ||
        attn_sag_open(registry, &open, &sag, &err))
        return fail("open", err.text);
    double opened = seconds_now() - began;
    attn_tensor embeds = tensor_of_file(file, "prompt_embeds");
    attn_tensor negative = tensor_of_file(file, "negative_prompt_embeds");
    attn_sag_run_options o = {.size = sizeof o,
                              .prompt_embeds = &embeds,
                              .negative_prompt_embeds = &negative,
                              .height = (uint32_t)size,
                              .width = (uint32_t)size,
                              .num_inference_steps = (uint32_t)steps};
    if (runs_do(sag, &o, (size_t)n, &r, &err))
        return fail("run", err.text);
    const int64_t side = size / vae_factor(sag->vae);
    const size_t count = (size_t)n;
    double step = median(r.steps, count), decode = median(r.decode, count);
    double graph1 = forward_time(sag, 1, side, &embeds, 1, &err);
    double graph2 = forward_time(sag, 2, side, &embeds, 1, &err);
    double eager2 = forward_time(sag, 2, side, &embeds, 0, &err);
    printf("{\"device\": \"%s\", \"dtype\": \"%s\", \"size\": %d, \"steps\": %d, \"open_s\": %.3f, "
           "\"first_run_s\": %.3f, \"step_ms\": %.3f, \"decode_ms\": %.2f, \"run_s\": %.4f, "
           "\"unet1_ms\": %.3f, \"unet2_ms\": %.3f, \"unet2_unrecorded_ms\": %.3f, "
           "\"peak_gib\": %.3f, \"pixel\": %.4f}\n",
           argv[4], argv[5], size, steps, opened, r.first, 1e3 * step / steps, 1e3 * decode,
           median(r.total, count), graph1, graph2, eager2,
           (double)r.peak / (double)(UINT64_C(1) << 30), (double)r.pixel);
    attn_sag_close(sag);
    attn_registry_close(registry);
    safetensors_close(file);
    return graph2 > 0 ? 0 : fail("UNet", err.text);
}
