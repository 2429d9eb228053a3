/* cmd_sag.c: attnplug sag: pictures from prompts, through plugins. */
#include "commands.h"
#include "sag/sag.h"

#include <signal.h>
#include <string.h>

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

/* What a step's callback needs, and what went wrong in it. */
struct watch {
    struct progress progress;
    const struct sag_arguments *a;
    attn_status status;
    attn_error *err;
};

static int32_t on_step(void *ctx, uint32_t step, uint32_t n_steps, float timestep,
                       const attn_tensor *latents)
{
    struct watch *watch = ctx;
    progress_draw(&watch->progress, step + 1, n_steps);
    if (!interrupted && watch->a->output.steps_pattern) {
        watch->status = step_write(watch->a, step, timestep, latents, watch->err);
    }
    return interrupted || watch->status;
}

/* 0, or an exit status. */
static int plugins_find(struct sag_arguments *a, attn_registry **registry)
{
    int code = cli_registry(registry);
    for (size_t i = 0; i < sag_n_subjects && !code; i++) {
        code = sag_subjects[i]->plugins ? sag_subjects[i]->plugins(a, *registry) : 0;
    }
    return code;
}

static attn_status inputs_load(struct sag_arguments *a, attn_error *err)
{
    attn_status status = ATTN_OK;
    for (size_t i = 0; i < sag_n_subjects && !status; i++) {
        status = sag_subjects[i]->load ? sag_subjects[i]->load(a, err) : ATTN_OK;
    }
    return status;
}

static attn_status pipeline_open(struct sag_arguments *a, attn_registry *registry, attn_sag **sag,
                                 attn_error *err)
{
    attn_sag_open_options o = {.size = sizeof o, .log = cli_log};
    for (size_t i = 0; i < sag_n_subjects; i++) {
        if (sag_subjects[i]->open) {
            sag_subjects[i]->open(a, &o);
        }
    }
    return attn_sag_open(registry, &o, sag, err);
}

static attn_status pipeline_run(struct sag_arguments *a, attn_sag *sag, attn_sag_result *result,
                                attn_error *err)
{
    ATTN_ERROR_ON(step_err, 4608);
    struct watch watch = {.a = a, .err = &step_err};
    attn_sag_run_options o = {.size = sizeof o, .callback = on_step, .callback_ctx = &watch};
    for (size_t i = 0; i < sag_n_subjects; i++) {
        if (sag_subjects[i]->run) {
            sag_subjects[i]->run(a, &o);
        }
    }
    progress_begin(&watch.progress);
    running = sag;
    attn_status status = interrupted ? ATTN_CANCELLED : attn_sag_run(sag, &o, result, err);
    running = NULL;
    progress_end(&watch.progress);
    /* The run was stopped by a file that could not be written. */
    return watch.status && !interrupted ? attn_fail(err, watch.status, "%s", step_err.text)
                                        : status;
}

/* What a device held at most; of a CPU's memory only who asks wants to know. */
static void memory_tell(const struct sag_arguments *a, const attn_sag_result *result)
{
    const char *device = a->model.device;
    if (cli_global.verbose || (device && strcmp(device, "cpu") != 0)) {
        (void)fprintf(stderr, "attnplug: memory for tensors: %.2f GiB at most\n",
                      (double)result->peak_bytes / (double)(UINT64_C(1) << 30));
    }
}

static int failure(attn_status status, const char *text)
{
    if (status == ATTN_CANCELLED || interrupted) {
        (void)cli_fail("interrupted%s%s", *text ? ": " : "", text);
        return SAG_INTERRUPTED;
    }
    return cli_fail("%s", text);
}

static int sag_do(struct sag_arguments *a)
{
    ATTN_ERROR_ON(err, 4608);
    attn_registry *registry = NULL;
    attn_sag *sag = NULL;
    attn_sag_result result = {.size = sizeof result};
    int code = plugins_find(a, &registry);
    attn_status status = code ? ATTN_OK : inputs_load(a, &err);
    if (!status && !code) {
        code = output_check(a, arguments_images(a));
    }
    if (!status && !code) {
        status = pipeline_open(a, registry, &sag, &err);
    }
    if (!status && !code) {
        status = pipeline_run(a, sag, &result, &err);
    }
    if (!status && !code) {
        if (*result.warning) {
            cli_log(NULL, 1, result.warning);
        }
        const struct made made = {&result, attn_sag_scheduler(sag)};
        code = output_write(a, &made);
    }
    if (!status && !code) {
        memory_tell(a, &result);
    }
    attn_sag_result_free(&result);
    attn_sag_close(sag);
    attn_registry_close(registry);
    return status ? failure(status, err.text) : code;
}

int cmd_sag(int argc, char **argv)
{
    static struct sag_arguments a; /* large for a stack */
    struct sigaction before_int;
    struct sigaction before_term;
    int code = arguments_read(&a, argc, argv);
    if (code == CLI_GO) {
        interrupted = 0;
        signals_set(&before_int, &before_term);
        code = sag_do(&a);
        sigaction(SIGINT, &before_int, NULL);
        sigaction(SIGTERM, &before_term, NULL);
    }
    arguments_free(&a);
    return code;
}
