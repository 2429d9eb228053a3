/* cmd_encode.c: attnplug encode: prompts to stored embeddings, which sag --prompt-embeds takes. */
#include "commands.h"
#include "sag/options.h"

#include "safetensors.h"

#include <stdlib.h>
#include <string.h>

static const char about[] = "Encodes prompts with a model's text encoder and stores prompt_embeds "
                            "and negative_prompt_embeds,"
                            "\n[prompts, 77, width] each, for attnplug sag --prompt-embeds.  Exit: "
                            "0 done, 1 failed, 2 wrong"
                            " usage.";

/* Those of sag's subjects that say what a text encoder is. */
static const struct sag_subject *const subjects[] = {&sag_model, &sag_adapters};
enum { SUBJECTS = sizeof subjects / sizeof *subjects };

struct encode_arguments {
    struct sag_arguments sag; /* of `subjects` */
    cli_texts prompts, negatives;
    int64_t clip_skip;
    const char *out;
};

static int check(struct encode_arguments *a)
{
    if (!a->prompts.n) {
        return cli_misuse("--prompt: none given, expected at least one");
    }
    if (!a->out) {
        return cli_misuse("--out: none given, expected a .safetensors file to write");
    }
    if (a->negatives.n > 1 && a->negatives.n != a->prompts.n) {
        return cli_misuse("--negative-prompt: given %u times, expected once, or %u times as"
                          " --prompt is",
                          a->negatives.n, a->prompts.n);
    }
    int wrong = count_check("clip-skip", a->clip_skip, 0);
    for (size_t i = 0; i < SUBJECTS && !wrong; i++) {
        wrong = subjects[i]->check ? subjects[i]->check(&a->sag) : 0;
    }
    return wrong;
}

static int read_arguments(struct encode_arguments *a, int argc, char **argv)
{
    cli_option options[8 + SUBJECTS * (SAG_SUBJECT_ROWS + 1)];
    const cli_option own[] = {
        {.help = "Prompts"},
        {"prompt", CLI_TEXTS, &a->prompts, "TEXT", "may be repeated"},
        {"negative-prompt", CLI_TEXTS, &a->negatives, "TEXT",
         "one for all prompts, or one for each (the empty one)"},
        {"clip-skip", CLI_INT, &a->clip_skip, "N",
         "layers of the text encoder to leave out, for --prompt alone (0)"},
        {"out", CLI_TEXT, &a->out, "FILE", "the .safetensors file to write"},
    };
    size_t n = sizeof own / sizeof *own;
    int first = 0;
    memcpy(options, own, sizeof own);
    for (size_t i = 0; i < SUBJECTS; i++) {
        options[n++] = (cli_option){.help = subjects[i]->name};
        n += subjects[i]->rows(&a->sag, options + n);
    }
    const cli_command command = {
        "attnplug encode --prompt TEXT --out FILE [OPTIONS]", about, options, n, 0, 0};
    int status = cli_parse(&command, argc, argv, &first);
    if (status == CLI_GO) {
        int wrong = check(a);
        status = wrong ? wrong : CLI_GO;
    }
    return status;
}

static attn_status pipeline_open(struct encode_arguments *a, attn_registry *registry,
                                 attn_sag **sag, attn_error *err)
{
    attn_sag_open_options o = {.size = sizeof o, .flags = ATTN_SAG_PROMPTS_ONLY, .log = cli_log};
    attn_status status = ATTN_OK;
    for (size_t i = 0; i < SUBJECTS && !status; i++) {
        status = subjects[i]->load ? subjects[i]->load(&a->sag, err) : ATTN_OK;
        if (!status && subjects[i]->open) {
            subjects[i]->open(&a->sag, &o);
        }
    }
    return status ? status : attn_sag_open(registry, &o, sag, err);
}

/* One negative prompt, or the empty one, stands for all. */
static attn_status negatives_encode(const struct encode_arguments *a, attn_sag *sag,
                                    attn_tensor *embeds, attn_error *err)
{
    const char *all[CLI_MAX_TEXTS];
    for (uint32_t i = 0; i < a->prompts.n; i++) {
        all[i] = a->negatives.n ? a->negatives.items[a->negatives.n > 1 ? i : 0] : "";
    }
    return attn_sag_encode(sag, all, a->prompts.n, 0, embeds, NULL, 0, err);
}

static safetensors_tensor stored(const char *name, const attn_tensor *t)
{
    safetensors_tensor s = {
        .name = name, .dtype = {t->code, t->bits}, .rank = t->rank, .data = t->data};
    memcpy(s.shape, t->shape, t->rank * sizeof *t->shape);
    return s;
}

static attn_status encode(struct encode_arguments *a, attn_sag *sag, attn_error *err)
{
    char warning[4096] = "";
    attn_tensor embeds = {0};
    attn_tensor negatives = {0};
    attn_status status =
        attn_sag_encode(sag, a->prompts.items, a->prompts.n, (uint32_t)a->clip_skip, &embeds,
                        warning, sizeof warning, err);
    if (*warning) {
        cli_log(NULL, 1, warning);
    }
    if (!status) {
        status = negatives_encode(a, sag, &negatives, err);
    }
    if (!status) {
        const safetensors_tensor tensors[] = {stored("negative_prompt_embeds", &negatives),
                                              stored("prompt_embeds", &embeds)};
        status = safetensors_write(a->out, tensors, 2, NULL, 0, err);
    }
    attn_sag_embeds_free(&negatives);
    attn_sag_embeds_free(&embeds);
    return status;
}

static int encode_do(struct encode_arguments *a)
{
    ATTN_ERROR_ON(err, 4608);
    attn_registry *registry = NULL;
    attn_sag *sag = NULL;
    int code = cli_registry(&registry);
    attn_status status = code ? ATTN_OK : pipeline_open(a, registry, &sag, &err);
    if (!code && !status) {
        status = encode(a, sag, &err);
    }
    if (!code && !status) {
        puts(a->out);
    }
    attn_sag_close(sag);
    attn_registry_close(registry);
    return status ? cli_fail("%s", err.text) : code;
}

int cmd_encode(int argc, char **argv)
{
    static struct encode_arguments a; /* large for a stack */
    int code = read_arguments(&a, argc, argv);
    if (code == CLI_GO) {
        code = encode_do(&a);
    }
    for (size_t i = 0; i < SUBJECTS; i++) {
        if (subjects[i]->free) {
            subjects[i]->free(&a.sag);
        }
    }
    return code;
}
