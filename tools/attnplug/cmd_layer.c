/* attnplug layer: one attention processor on a stored layer. */
#include "cli.h"
#include "commands.h"

#include "attention_mask.h"
#include "attn_layer.h"
#include "error.h"
#include "layer_file.h"
#include "processor_words.h"
#include "safetensors.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *processor, *op, *device, *dtype, *in, *out;
} arguments;

/* Everything of one run. */
typedef struct {
    const arguments *a;
    struct layer_file *file;
    struct processor_words words;
    attn_param *params; /* the file's, then those of the words */
    float *mask_memory, *out;
    attn_layer_call call;
} work;

/* A parameter of the words takes the place of one of the same name in the file. */
static attn_status join_params(work *w, attn_error *err)
{
    attn_layer_spec *spec = &w->words.spec;
    uint32_t n = 0;
    w->params = calloc(w->file->n_params + spec->n_params + 1, sizeof *w->params);
    if (!w->params) {
        return attn_fail(err, ATTN_NOMEM, "no memory for parameters");
    }
    for (uint32_t i = 0; i < w->file->n_params; i++) {
        uint32_t k = 0;
        while (k < spec->n_params && strcmp(spec->params[k].name, w->file->params[i].name) != 0) {
            k++;
        }
        if (k == spec->n_params) {
            w->params[n++] = w->file->params[i];
        }
    }
    for (uint32_t k = 0; k < spec->n_params; k++) {
        w->params[n++] = spec->params[k];
    }
    spec->params = w->params;
    spec->n_params = n;
    return ATTN_OK;
}

/* How many of an encoder's last tokens are an image prompt, where none is stored by itself. */
static int64_t image_tokens(const attn_layer_spec *spec)
{
    for (uint32_t i = 0; i < spec->n_params; i++) {
        if (spec->params[i].kind == ATTN_PARAM_INT &&
            (strcmp(spec->params[i].name, "num_tokens") == 0 ||
             strcmp(spec->params[i].name, "num_tokens.0") == 0)) {
            return spec->params[i].i;
        }
    }
    return 4;
}

static attn_status make_bias(work *w, attn_registry *registry, attn_error *err)
{
    const struct layer_file *f = w->file;
    const attn_tensor *h = &f->hidden;
    attn_name name = {.size = sizeof name};
    if (!f->mask.rank) {
        return ATTN_OK;
    }
    attn_status status =
        attn_name_find_in(registry, w->words.spec.processor, ATTN_NAME_PROCESSORS, &name, err);
    if (status != ATTN_OK) {
        return status;
    }
    const char *plus = name.processor ? strchr(name.processor, '+') : NULL;
    const char *runs = plus ? plus + 1 : name.processor ? name.processor : "";
    int64_t tokens = h->rank == 4 ? h->shape[2] * h->shape[3] : h->shape[1];
    return attention_bias(&f->mask, h->shape[0], f->layer.heads, tokens,
                          layer_file_keys(f, runs, image_tokens(&w->words.spec)), &w->call.bias,
                          &w->mask_memory, err);
}

/* The call's tensors; out has the channels of to_out. */
static attn_status make_call(work *w, attn_registry *registry, attn_error *err)
{
    const struct layer_file *f = w->file;
    attn_tensor out = f->hidden;
    out.shape[out.rank == 4 ? 1 : 2] = f->layer.to_out.weight.shape[0];
    int64_t count = 1;
    for (uint32_t i = out.rank; i-- > 0;) {
        out.stride[i] = count;
        count *= out.shape[i];
    }
    w->out = calloc((size_t)count + 1, sizeof *w->out);
    if (!w->out) {
        return attn_fail(err, ATTN_NOMEM, "no memory for out: %lld numbers", (long long)count);
    }
    out.data = w->out;
    out.align = 0;
    w->call = (attn_layer_call){.size = sizeof w->call,
                                .hidden = f->hidden,
                                .encoder = f->encoder,
                                .out = out,
                                .temb = f->temb,
                                .images = f->n_images ? f->images : NULL,
                                .n_images = f->n_images};
    return make_bias(w, registry, err);
}

static attn_status read_all(work *w, attn_registry *registry, attn_error *err)
{
    attn_status status = layer_file_open(w->a->in, &w->file, err);
    if (status == ATTN_OK) {
        w->words.spec.op = w->a->op;
        status = join_params(w, err);
    }
    return status == ATTN_OK ? make_call(w, registry, err) : status;
}

static attn_status compute(work *w, attn_registry *registry, const attn_device *device,
                           uint64_t dtype, attn_error *err)
{
    attn_computer *computer = NULL;
    attn_bound *bound = NULL;
    attn_status status = attn_computer_open_as(registry, device, dtype, 0, &computer, err);
    if (status == ATTN_OK) {
        status = attn_layer_bind(computer, &w->file->layer, &w->words.spec, &bound, err);
    }
    if (status == ATTN_OK) {
        status = attn_layer_run(bound, &w->call, err);
    }
    if (status == ATTN_OK && cli_global.verbose) {
        (void)fprintf(stderr, "attnplug: %s over %s\n", attn_layer_processor(bound),
                      attn_layer_op(bound));
    }
    attn_layer_unbind(bound);
    attn_computer_close(computer);
    return status;
}

static attn_status write_out(const work *w, attn_error *err)
{
    const attn_tensor *t = &w->call.out;
    safetensors_tensor out = {
        .name = "out", .dtype = {ATTN_CODE_FLOAT, 32}, .rank = t->rank, .data = w->out};
    const safetensors_text processor = {"processor", w->a->processor};
    memcpy(out.shape, t->shape, t->rank * sizeof t->shape[0]);
    return safetensors_write(w->a->out, &out, 1, &processor, 1, err);
}

static int plugins_find(arguments *a, cli_processor *files, attn_registry **registry)
{
    int failed = cli_op_file(a->op);
    failed = failed ? failed : cli_registry(registry);
    failed = failed ? failed : cli_op_of_file(*registry, &a->op);
    failed = failed ? failed : cli_op_known(*registry, a->op);
    return failed ? failed : cli_processor_of_files(*registry, &a->processor, files);
}

/* The processor's words, with names that are there. */
static int words_read(work *w, attn_registry *registry)
{
    ATTN_ERROR_ON(err, 512);
    if (processor_words_parse(w->a->processor, &w->words, &err)) {
        return cli_misuse("--processor %s: %s", w->a->processor, err.text);
    }
    return cli_processor_known(registry, w->words.spec.processor, w->a->processor);
}

static int run(arguments *a, const attn_device *device, uint64_t dtype)
{
    ATTN_ERROR_ON(err, 1024);
    work w = {.a = a};
    attn_registry *registry = NULL;
    cli_processor files;
    int failed = cli_processor_files(a->processor, &files);
    failed = failed ? failed : plugins_find(a, &files, &registry);
    failed = failed ? failed : words_read(&w, registry);
    if (failed) {
        processor_words_clear(&w.words);
        cli_processor_free(&files);
        attn_registry_close(registry);
        return failed;
    }
    attn_status status = read_all(&w, registry, &err);
    if (status == ATTN_OK) {
        status = compute(&w, registry, device, dtype, &err);
    }
    if (status == ATTN_OK) {
        status = write_out(&w, &err);
    }
    free(w.out);
    free(w.mask_memory);
    free(w.params);
    processor_words_clear(&w.words);
    layer_file_close(w.file);
    cli_processor_free(&files);
    attn_registry_close(registry);
    return status == ATTN_OK ? CLI_OK : cli_fail("%s", err.text);
}

int cmd_layer(int argc, char **argv)
{
    arguments a = {.device = "cpu", .dtype = "f32"};
    attn_device device;
    uint8_t code, bits;
    int first = 0;
    const cli_option options[] = {
        {"processor", CLI_TEXT, &a.processor, "NAME",
         "NAME[+NAME][:param=value,...]: names (attnplug names), plugins' ids or their files"},
        {"op", CLI_TEXT, &a.op, "NAME",
         "the attention's op: a name, an id or a file; the parameter attention_op goes before it"},
        {"in", CLI_TEXT, &a.in, "F", "the layer and its inputs, a .safetensors file"},
        {"out", CLI_TEXT, &a.out, "G", "where to write out"},
        {"device", CLI_TEXT, &a.device, "D", "cpu, cuda, cuda:1 (default cpu)"},
        {"dtype", CLI_TEXT, &a.dtype, "T",
         "f32, f16 or bf16 (default f32; a CPU computes them all in f32)"},
    };
    const cli_command command = {
        "attnplug layer --processor NAME[+NAME][:param=value,...] --in F --out G [OPTIONS]",
        "Runs an attention processor on a stored layer.  The file has the weights under attn. "
        "with\n"
        "diffusers' state-dict names, the processor's own under attn.processor., hidden_states\n"
        "(3-D, or 4-D NCHW), encoder_hidden_states, ip_hidden_states.<i>, temb and attention_mask\n"
        "as Attention.forward takes them; its metadata key config is a JSON object of the\n"
        "Attention constructor's arguments.  Lists are scale.0=, scale.1=.",
        options,
        sizeof options / sizeof *options,
        0,
        0};
    int status = cli_parse(&command, argc, argv, &first);
    if (status != CLI_GO) {
        return status;
    }
    const char *missing = !a.processor ? "--processor" : !a.in ? "--in" : !a.out ? "--out" : NULL;
    if (missing) {
        return cli_misuse("%s is missing; usage: %s", missing, command.usage);
    }
    if (!cli_device(a.device, &device) || !cli_dtype(a.dtype, &code, &bits)) {
        return CLI_USAGE;
    }
    if (bits == 64) {
        return cli_misuse("--dtype: \"%s\", expected f32, f16 or bf16", a.dtype);
    }
    const uint64_t dtype = bits == 32                 ? ATTN_DTYPE_F32
                           : code == ATTN_CODE_BFLOAT ? ATTN_DTYPE_BF16
                                                      : ATTN_DTYPE_F16;
    return run(&a, &device, dtype);
}
