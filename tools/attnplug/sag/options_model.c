/* options_model.c: which model, and where it runs. */
#include "options.h"

#include <stdlib.h>
#include <string.h>

static size_t rows(struct sag_arguments *a, cli_option *rows)
{
    struct model_options *m = &a->model;
    size_t n = 0;
    m->threads = SAG_NOT_GIVEN;
    rows[n++] = (cli_option){"model", CLI_TEXT, &m->folder, "DIR",
                             "a folder in diffusers' format, or a .safetensors checkpoint with"
                             " original names (the built-in emoji-128)"};
    rows[n++] = (cli_option){"variant", CLI_TEXT, &m->variant, "NAME",
                             "fp16: of a folder's files those of that variant, where there are"
                             " such"};
    rows[n++] = (cli_option){"prediction-type", CLI_TEXT, &m->prediction_type, "TYPE",
                             "epsilon, v_prediction or sample in place of the model's own"};
    rows[n++] =
        (cli_option){"extract-ema", CLI_FLAG, &m->ema, NULL, "a checkpoint's averaged weights"};
    rows[n++] = (cli_option){"device", CLI_TEXT, &m->device, "NAME", "(cpu)"};
    rows[n++] = (cli_option){"dtype", CLI_TEXT, &m->dtype, "NAME", "f32, f16 or bf16 (f32)"};
    rows[n++] = (cli_option){"threads", CLI_INT, &m->threads, "N", "(one for each core)"};
    return n;
}

static int check(struct sag_arguments *a)
{
    static const char *const types[] = {"epsilon", "v_prediction", "sample"};
    const char *type = a->model.prediction_type;
    int known = !type;
    for (size_t i = 0; i < sizeof types / sizeof *types && !known; i++) {
        known = strcmp(types[i], type) == 0;
    }
    return known ? count_check("threads", a->model.threads, 1)
                 : cli_misuse("--prediction-type: \"%s\", expected epsilon, v_prediction or sample",
                              type);
}

static attn_status load(struct sag_arguments *a, attn_error *err)
{
    struct model_options *m = &a->model;
    if (!m->folder) {
        m->built_in = model_find();
        m->folder = m->built_in;
    }
    return m->folder ? ATTN_OK
                     : attn_fail(err, ATTN_NOT_FOUND,
                                 "the built-in model emoji-128 is not installed, expected --model");
}

static void open_(struct sag_arguments *a, attn_sag_open_options *o)
{
    const struct model_options *m = &a->model;
    o->model = m->folder;
    o->device = m->device;
    o->dtype = m->dtype;
    o->variant = m->variant;
    o->prediction_type = m->prediction_type;
    o->flags |= m->ema ? ATTN_SAG_EMA : 0;
    o->n_threads = m->threads == SAG_NOT_GIVEN ? 0 : (uint32_t)m->threads;
}

static void release(struct sag_arguments *a)
{
    free(a->model.built_in);
}

const struct sag_subject sag_model = {
    .name = "Model", .rows = rows, .check = check, .load = load, .open = open_, .free = release};
