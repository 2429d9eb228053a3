/* sag_prompt.c: prompts to embeddings. */
#include "sag_private.h"

#include <stdlib.h>
#include <string.h>

attn_status prompts_possible(const attn_sag *sag, attn_error *err)
{
    if (!sag->tokenizer && sag->text && sag->components->files.checkpoint) {
        return attn_fail(err, ATTN_NOT_FOUND,
                         "%s: its text encoder has %lld tokens, CLIP's vocabulary %d, so prompts"
                         " cannot be encoded; prompt_embeds can be given instead",
                         sag->model, (long long)text_encoder_vocabulary(sag->text),
                         TOKENIZER_CLIP_TOKENS);
    }
    if (!sag->tokenizer || !sag->text) {
        return attn_fail(err, ATTN_NOT_FOUND,
                         "%s/%s: no such folder, so prompts cannot be encoded; prompt_embeds can be"
                         " given instead",
                         sag->model, sag->tokenizer ? "text_encoder" : "tokenizer");
    }
    return ATTN_OK;
}

/* One prompt's ids; what was cut is added to the warning. */
static attn_status prompt_tokenize(attn_sag *sag, const char *prompt, int32_t *ids, char **warning,
                                   attn_error *err)
{
    char *cut = NULL;
    char *longer = NULL;
    attn_status status = tokenizer_encode(sag->tokenizer, prompt, ids, &cut, err);
    if (status || !cut) {
        return status;
    }
    if (asprintf(&longer, "%s%sthe model reads %zu tokens of a prompt; this part was cut: \"%s\"",
                 *warning ? *warning : "", *warning ? "; " : "",
                 tokenizer_max_length(sag->tokenizer), cut) < 0) {
        status = attn_fail(err, ATTN_NOMEM, "no memory for a warning");
    } else {
        free(*warning);
        *warning = longer;
        for (char *c = longer; *c; c++) {
            *c = *c == '\n' ? ' ' : *c;
        }
    }
    free(cut);
    return status;
}

attn_status prompts_encode(attn_sag *sag, const char *const *prompts, uint32_t n,
                           uint32_t clip_skip, double lora_scale, float *out, char **warning,
                           attn_error *err)
{
    attn_status status = prompts_possible(sag, err);
    if (status) {
        return status;
    }
    size_t length = tokenizer_max_length(sag->tokenizer);
    int32_t *ids = malloc(n * length * sizeof *ids);
    if (!ids) {
        return attn_fail(err, ATTN_NOMEM, "no memory for %u prompts", n);
    }
    for (uint32_t i = 0; i < n && !status; i++) {
        if (!prompts[i]) {
            status = attn_fail(err, ATTN_INVALID, "prompt %u of %u: none given", i + 1, n);
        } else {
            status = prompt_tokenize(sag, prompts[i], ids + i * length, warning, err);
        }
    }
    if (!status) {
        float scales[LORA_MOST_FILES];
        const struct lora_set *loras = sag->components->loras;
        lora_set_scales(loras, LORA_TEXT_ENCODER, lora_scale, scales);
        pthread_mutex_lock(&sag->components->encoders_lock);
        text_encoder_set_scales(sag->text, scales, lora_set_count(loras));
        status = text_encoder_run(sag->text, n, ids, clip_skip, out, err);
        pthread_mutex_unlock(&sag->components->encoders_lock);
    }
    free(ids);
    return status;
}

attn_status attn_sag_encode(attn_sag *sag, const char *const *prompts, uint32_t n_prompts,
                            uint32_t clip_skip, attn_tensor *embeds, char *warning,
                            uint32_t warning_bytes, attn_error *err)
{
    char *cut = NULL;
    if (!sag || !embeds) {
        return attn_fail(err, ATTN_INVALID,
                         "attn_sag_encode: expected a pipeline and where to put embeddings");
    }
    *embeds = (attn_tensor){0};
    if (warning && warning_bytes) {
        warning[0] = 0;
    }
    if (!n_prompts || !prompts) {
        return attn_fail(err, ATTN_INVALID, "prompts: none given, expected at least one");
    }
    attn_status status = prompts_possible(sag, err);
    if (status) {
        return status;
    }
    const int64_t shape[3] = {n_prompts, text_encoder_tokens(sag->text),
                              text_encoder_width(sag->text)};
    float *data = malloc((size_t)shape[0] * (size_t)shape[1] * (size_t)shape[2] * sizeof *data);
    status = data ? prompts_encode(sag, prompts, n_prompts, clip_skip, 1, data, &cut, err)
                  : attn_fail(err, ATTN_NOMEM, "no memory for %u prompts", n_prompts);
    if (status) {
        free(data);
    } else {
        *embeds = host_f32(data, 3, shape);
        embeds->data = data;
        if (warning && warning_bytes && cut) {
            snprintf(warning, warning_bytes, "%s", cut);
        }
    }
    free(cut);
    return status;
}

void attn_sag_embeds_free(attn_tensor *embeds)
{
    if (embeds) {
        free(embeds->data);
        *embeds = (attn_tensor){0};
    }
}
