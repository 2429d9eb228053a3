#include "stored_layer.h"

#include "attention_mask.h"
#include "composition.h"
#include "safetensors.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int64_t tensor_count(const attn_tensor *t)
{
    int64_t n = t->rank > 0;
    for (uint32_t i = 0; i < t->rank; i++)
        n *= t->shape[i];
    return n;
}

double relative_error(const float *got, const float *expected, int64_t n)
{
    double difference = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(got[i]))
            return INFINITY;
        difference += pow((double)got[i] - (double)expected[i], 2);
        size += pow((double)expected[i], 2);
    }
    return size > 0 ? sqrt(difference / size) : sqrt(difference);
}

/* Metadata that lies beside the layer. */
static attn_status read_words(const char *path, struct stored_layer *s, attn_error *err)
{
    safetensors *file = NULL;
    attn_status status = safetensors_open(path, &file, err);
    if (status != ATTN_OK)
        return status;
    const char *words = safetensors_metadata(file, "processor");
    const char *reference = safetensors_metadata(file, "reference");
    if (!words || !reference) {
        status = attn_fail(err, ATTN_INVALID, "%s: no processor or reference", path);
        goto done;
    }
    (void)snprintf(s->reference, sizeof s->reference, "%s", reference);
    status = processor_words_parse(words, &s->words, err);
    s->name.size = sizeof s->name;
    if (status == ATTN_OK)
        status = attn_name_find(s->words.spec.processor, &s->name, err);
    if (status == ATTN_OK) {
        const char *base = composition_base(s->name.processor);
        (void)snprintf(s->base, sizeof s->base, "%s", base ? base : s->name.processor);
    }
done:
    safetensors_close(file);
    return status;
}

/* All parameters: the file's tensors, then the words. */
static attn_status join_params(struct stored_layer *s, attn_error *err)
{
    uint32_t n = s->file->n_params + s->words.spec.n_params;
    attn_param *all = calloc(n + 1, sizeof *all);
    if (!all)
        return attn_fail(err, ATTN_NOMEM, "no memory");
    for (uint32_t i = 0; i < s->file->n_params; i++)
        all[i] = s->file->params[i];
    for (uint32_t i = 0; i < s->words.spec.n_params; i++)
        all[s->file->n_params + i] = s->words.spec.params[i];
    free(s->words.params);
    s->words.params = all;
    s->words.spec.params = all;
    s->words.spec.n_params = n;
    return ATTN_OK;
}

static int64_t image_tokens(const struct stored_layer *s)
{
    for (uint32_t i = 0; i < s->words.spec.n_params; i++)
        if (strcmp(s->words.spec.params[i].name, "num_tokens") == 0)
            return s->words.spec.params[i].i;
    return 4;
}

static attn_status make_bias(struct stored_layer *s, attn_error *err)
{
    const struct layer_file *f = s->file;
    const attn_tensor *h = &f->hidden;
    if (!f->mask.rank)
        return ATTN_OK;
    int64_t tokens = h->rank == 4 ? h->shape[2] * h->shape[3] : h->shape[1];
    return attention_bias(&f->mask, h->shape[0], f->layer.heads, tokens,
                          layer_file_keys(f, s->base, image_tokens(s)), &s->bias, &s->bias_memory,
                          err);
}

attn_status stored_open(const char *path, struct stored_layer *s, attn_error *err)
{
    *s = (struct stored_layer){0};
    attn_status status = layer_file_open(path, &s->file, err);
    if (status == ATTN_OK)
        status = read_words(path, s, err);
    if (status == ATTN_OK)
        status = join_params(s, err);
    if (status == ATTN_OK)
        status = make_bias(s, err);
    if (status == ATTN_OK && !s->file->expected.rank)
        status = attn_fail(err, ATTN_INVALID, "%s: no out", path);
    if (status == ATTN_OK) {
        s->out_count = tensor_count(&s->file->expected);
        s->out = malloc((size_t)s->out_count * sizeof *s->out);
        if (!s->out)
            status = attn_fail(err, ATTN_NOMEM, "no memory");
    }
    if (status != ATTN_OK)
        stored_close(s);
    return status;
}

void stored_close(struct stored_layer *s)
{
    free(s->out);
    free(s->bias_memory);
    processor_words_clear(&s->words);
    layer_file_close(s->file);
    *s = (struct stored_layer){0};
}

attn_layer_call stored_call(struct stored_layer *s)
{
    const struct layer_file *f = s->file;
    attn_layer_call call = {.size = sizeof call,
                            .hidden = f->hidden,
                            .encoder = f->encoder,
                            .out = f->expected,
                            .bias = s->bias,
                            .temb = f->temb,
                            .images = f->n_images ? f->images : NULL,
                            .n_images = f->n_images};
    call.out.data = s->out;
    call.out.align = 0;
    memset(s->out, 0xff, (size_t)s->out_count * sizeof *s->out);
    return call;
}

double stored_error(const struct stored_layer *s)
{
    return relative_error(s->out, s->file->expected.data, s->out_count);
}
