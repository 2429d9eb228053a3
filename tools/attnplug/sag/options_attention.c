/* options_attention.c: which processors and ops the UNet's layers get, and what is passed to them.
 */
#include "options.h"

#include <stdlib.h>
#include <string.h>

static size_t rows(struct sag_arguments *a, cli_option *rows)
{
    struct attention_options *o = &a->attention;
    size_t n = 0;
    rows[n++] = (cli_option){"op", CLI_TEXT, &o->op, "NAME",
                             "for every attention: a name, a plugin's id or its file (auto)"};
    rows[n++] = (cli_option){
        "processor", CLI_TEXTS, &o->processor_texts, "[GLOB=]NAME[+NAME][:PARAM=VALUE,...]",
        "for the UNet's layers that match, a NAME being a name, an id or a file; the last "
        "match wins (standard)"};
    rows[n++] =
        (cli_option){"cross-attention-kwargs", CLI_TEXTS, &o->kwargs_texts, "NAME=VALUE[,...]",
                     "for every processor in every pass, such as scale=0.5"};
    return n;
}

static int words_read(struct processor_option *p, const char *text)
{
    ATTN_ERROR_ON(err, 512);
    processor_words_clear(&p->words);
    if (processor_words_parse(cli_processor_names(text), &p->words, &err)) {
        return cli_misuse("--processor %s: %s", text, err.text);
    }
    return 0;
}

static int processor_read(struct processor_option *p, const char *text)
{
    const char *names = cli_processor_names(text);
    if (names != text) {
        p->glob = strndup(text, (size_t)(names - text) - 1);
        if (!p->glob) {
            return cli_fail("out of memory");
        }
    }
    int wrong = words_read(p, text);
    return wrong ? wrong : cli_processor_files(text, &p->files);
}

static int kwargs_read(struct attention_options *o)
{
    for (uint32_t i = 0; i < o->kwargs_texts.n; i++) {
        ATTN_ERROR_ON(err, 512);
        struct processor_words *words = &o->kwargs[o->n_kwargs++];
        if (processor_params_parse(o->kwargs_texts.items[i], words, &err)) {
            return cli_misuse("--cross-attention-kwargs %s: %s", o->kwargs_texts.items[i],
                              err.text);
        }
        o->n_kwargs_all += words->spec.n_params;
    }
    o->kwargs_all = calloc(o->n_kwargs_all + 1, sizeof *o->kwargs_all);
    if (!o->kwargs_all) {
        return cli_fail("out of memory");
    }
    attn_param *next = o->kwargs_all;
    for (uint32_t i = 0; i < o->n_kwargs; i++) {
        const attn_layer_spec *spec = &o->kwargs[i].spec;
        for (uint32_t k = 0; k < spec->n_params; k++) {
            *next++ = spec->params[k];
        }
    }
    return 0;
}

static int check(struct sag_arguments *a)
{
    struct attention_options *o = &a->attention;
    int wrong = cli_op_file(o->op);
    for (uint32_t i = 0; i < o->processor_texts.n && !wrong; i++) {
        struct processor_option *p = &o->processors[o->n_processors++];
        wrong = processor_read(p, o->processor_texts.items[i]);
    }
    return wrong ? wrong : kwargs_read(o);
}

/* From here on ids stand for files, in the picture's parameters too. */
static int processor_find(attn_registry *registry, struct processor_option *p, const char **text)
{
    int wrong = cli_processor_of_files(registry, text, &p->files);
    wrong = wrong ? wrong : words_read(p, *text);
    return wrong ? wrong : cli_processor_known(registry, p->words.spec.processor, *text);
}

static int plugins(struct sag_arguments *a, attn_registry *registry)
{
    struct attention_options *o = &a->attention;
    int wrong = cli_op_of_file(registry, &o->op);
    for (uint32_t i = 0; i < o->n_processors && !wrong; i++) {
        wrong = processor_find(registry, &o->processors[i], &o->processor_texts.items[i]);
        o->specs[i] = (attn_sag_processor){.glob = o->processors[i].glob,
                                           .spec = o->processors[i].words.spec};
    }
    return wrong ? wrong : cli_op_known(registry, o->op);
}

static void open_(struct sag_arguments *a, attn_sag_open_options *o)
{
    o->op = a->attention.op;
    o->processors = a->attention.specs;
    o->n_processors = a->attention.n_processors;
}

static void run(struct sag_arguments *a, attn_sag_run_options *o)
{
    o->cross_attention_kwargs = a->attention.kwargs_all;
    o->n_cross_attention_kwargs = a->attention.n_kwargs_all;
}

static void describe(const struct sag_arguments *a, FILE *to)
{
    const struct attention_options *o = &a->attention;
    if (o->op) {
        (void)fprintf(to, ", Op: %s", o->op);
    }
    for (uint32_t i = 0; i < o->processor_texts.n; i++) {
        (void)fprintf(to, ", Processor: \"%s\"", o->processor_texts.items[i]);
    }
    for (uint32_t i = 0; i < o->kwargs_texts.n; i++) {
        (void)fprintf(to, ", Cross attention: \"%s\"", o->kwargs_texts.items[i]);
    }
}

static void release(struct sag_arguments *a)
{
    struct attention_options *o = &a->attention;
    for (uint32_t i = 0; i < o->n_processors; i++) {
        processor_words_clear(&o->processors[i].words);
        cli_processor_free(&o->processors[i].files);
        free(o->processors[i].glob);
    }
    for (uint32_t i = 0; i < o->n_kwargs; i++) {
        processor_words_clear(&o->kwargs[i]);
    }
    free(o->kwargs_all);
}

const struct sag_subject sag_attention = {.name = "Attention",
                                          .rows = rows,
                                          .check = check,
                                          .plugins = plugins,
                                          .open = open_,
                                          .run = run,
                                          .describe = describe,
                                          .free = release};
