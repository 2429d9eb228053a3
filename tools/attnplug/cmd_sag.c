/* cmd_sag.c: attnplug sag: pictures from prompts, through plugins. */
#include "commands.h"
#include "sag/sag.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What a signal handler may touch. */
static volatile sig_atomic_t interrupted;
static attn_sag *volatile running;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
    if (running) {
        attn_sag_cancel(running);
    }
}

static void signals_set(struct sigaction *before_int, struct sigaction *before_term)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, before_int);
    sigaction(SIGTERM, &action, before_term);
}

static void log_print(void *ctx, int32_t level, const char *text)
{
    (void)ctx;
    if (level <= 1 || cli_global.verbose) {
        (void)fprintf(stderr, "attnplug: %s%s\n", level == 1 ? "warning: " : "", text);
    }
}

static int32_t on_step(void *ctx, uint32_t step, uint32_t n_steps, float timestep,
                       const attn_tensor *latents)
{
    (void)timestep;
    (void)latents;
    progress_draw(ctx, step + 1, n_steps);
    return interrupted;
}

/* The files that the options name, in memory. */
struct inputs {
    attn_tensor latents, embeds, negative_embeds;
};

static attn_status inputs_load(struct inputs *in, const struct sag_arguments *a, attn_error *err)
{
    attn_status status = ATTN_OK;
    if (a->latents) {
        status = tensor_load(a->latents, "latents", false, &in->latents, err);
    }
    if (!status && a->prompt_embeds) {
        status = tensor_load(a->prompt_embeds, "prompt_embeds", false, &in->embeds, err);
    }
    if (!status && a->negative_prompt_embeds) {
        status = tensor_load(a->negative_prompt_embeds, "negative_prompt_embeds", false,
                             &in->negative_embeds, err);
    } else if (!status && a->prompt_embeds && !a->negatives.n) {
        status = tensor_load(a->prompt_embeds, "negative_prompt_embeds", true, &in->negative_embeds,
                             err);
    }
    return status;
}

static void inputs_free(struct inputs *in)
{
    free(in->latents.data);
    free(in->embeds.data);
    free(in->negative_embeds.data);
}

/* A model that comes with a checker is not used without it unless that was asked for. */
static int checker_check(const struct sag_arguments *a, const char *model)
{
    char *path = NULL;
    int status = 0;
    if (asprintf(&path, "%s/safety_checker", model) < 0) {
        return cli_fail("out of memory");
    }
    if (!a->no_safety_checker && access(path, F_OK) == 0) {
        status = cli_fail(
            "%s: the safety checker is not supported by this version; --no-safety-checker uses the"
            " model without it",
            path);
    }
    free(path);
    return status;
}

/* 0 stands for the library's default. */
static uint32_t given(int64_t count)
{
    return count == SAG_NOT_GIVEN ? 0 : (uint32_t)count;
}

static attn_status pipeline_open(const struct sag_arguments *a, const char *model,
                                 attn_registry *registry, attn_sag **sag, attn_error *err)
{
    attn_sag_processor *processors = calloc(a->n_processors + 1, sizeof *processors);
    if (!processors) {
        return attn_fail(err, ATTN_NOMEM, "out of memory");
    }
    for (uint32_t i = 0; i < a->n_processors; i++) {
        const struct processor_option *p = &a->processors[i];
        processors[i] = (attn_sag_processor){.glob = p->glob,
                                             .spec = {.size = sizeof(attn_layer_spec),
                                                      .processor = p->name,
                                                      .params = p->params,
                                                      .n_params = p->n_params}};
    }
    attn_sag_open_options o = {.size = sizeof o,
                               .model = model,
                               .device = a->device,
                               .dtype = a->dtype,
                               .n_threads = given(a->threads),
                               .n_processors = a->n_processors,
                               .processors = processors,
                               .op = a->op,
                               .scheduler = a->scheduler,
                               .log = log_print};
    attn_status status = attn_sag_open(registry, &o, sag, err);
    free(processors);
    return status;
}

static attn_status pipeline_run(const struct sag_arguments *a, const struct inputs *in,
                                attn_sag *sag, attn_sag_result *result, attn_error *err)
{
    struct progress progress;
    attn_sag_run_options o = {
        .size = sizeof o,
        .flags = ATTN_SAG_SET_GUIDANCE | ATTN_SAG_SET_SAG |
                 (strcmp(a->output_type, "latent") == 0 ? ATTN_SAG_LATENT : 0),
        .prompts = a->prompts.items,
        .n_prompts = a->prompts.n,
        .n_negative = a->negatives.n,
        .negative_prompts = a->negatives.items,
        .prompt_embeds = in->embeds.rank ? &in->embeds : NULL,
        .negative_prompt_embeds = in->negative_embeds.rank ? &in->negative_embeds : NULL,
        .latents = in->latents.rank ? &in->latents : NULL,
        .height = given(a->height),
        .width = given(a->width),
        .num_inference_steps = (uint32_t)a->steps,
        .num_images_per_prompt = (uint32_t)a->per_prompt,
        .guidance_scale = a->guidance_scale,
        .sag_scale = a->sag_scale,
        .eta = a->eta,
        .seeds = a->seeds,
        .n_seeds = a->seed_texts.n,
        .clip_skip = (uint32_t)a->clip_skip,
        .progress = on_step,
        .progress_ctx = &progress,
        .progress_every = (uint32_t)a->callback_steps,
    };
    progress_begin(&progress);
    running = sag;
    attn_status status = interrupted ? ATTN_CANCELLED : attn_sag_run(sag, &o, result, err);
    running = NULL;
    progress_end(&progress);
    return status;
}

static int failure(attn_status status, const char *text)
{
    if (status == ATTN_CANCELLED || interrupted) {
        (void)cli_fail("interrupted%s%s", *text ? ": " : "", text);
        return SAG_INTERRUPTED;
    }
    return cli_fail("%s", text);
}

static int sag_do(const struct sag_arguments *a, const char *model)
{
    ATTN_ERROR_ON(err, 4608);
    struct inputs in = {0};
    attn_registry *registry = NULL;
    attn_sag *sag = NULL;
    attn_sag_result result = {.size = sizeof result};
    int code = checker_check(a, model);
    if (code) {
        return code;
    }
    attn_status status = inputs_load(&in, a, &err);
    if (!status) {
        int64_t prompts = in.embeds.rank ? in.embeds.shape[0] : a->prompts.n;
        int64_t images = prompts * a->per_prompt;
        code = output_check(a, images > UINT32_MAX ? UINT32_MAX : (uint32_t)images);
    }
    if (!status && !code) {
        code = cli_registry(&registry);
    }
    if (!status && !code) {
        status = pipeline_open(a, model, registry, &sag, &err);
    }
    if (!status && !code) {
        status = pipeline_run(a, &in, sag, &result, &err);
    }
    if (!status && !code) {
        if (*result.warning) {
            log_print(NULL, 1, result.warning);
        }
        const struct made made = {&result, model, attn_sag_scheduler(sag)};
        code = output_write(a, &made);
    }
    attn_sag_result_free(&result);
    attn_sag_close(sag);
    attn_registry_close(registry);
    inputs_free(&in);
    return status ? failure(status, err.text) : code;
}

int cmd_sag(int argc, char **argv)
{
    struct sag_arguments a;
    struct sigaction before_int;
    struct sigaction before_term;
    int code = arguments_read(&a, argc, argv);
    if (code == CLI_GO) {
        char *own = a.model ? NULL : model_find();
        const char *model = a.model ? a.model : own;
        interrupted = 0;
        signals_set(&before_int, &before_term);
        code = model ? sag_do(&a, model)
                     : cli_fail("the built-in model emoji-128 is not installed, expected --model");
        sigaction(SIGINT, &before_int, NULL);
        sigaction(SIGTERM, &before_term, NULL);
        free(own);
    }
    arguments_free(&a);
    return code;
}
