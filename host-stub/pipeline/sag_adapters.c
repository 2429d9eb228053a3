/* sag_adapters.c: what adapter files add to a pipeline's components while they are loaded. */
#include "sag_adapters.h"

#include "inversion.h"

#include <stdlib.h>
#include <string.h>

static attn_status loras_open(struct sag_components *m, const attn_sag_open_options *o,
                              attn_error *err)
{
    struct lora_choice *choices;
    attn_status status;
    if (!o->n_loras) {
        return ATTN_OK;
    }
    choices = calloc(o->n_loras, sizeof *choices);
    if (!choices) {
        return attn_fail(err, ATTN_NOMEM, "no memory for %u LoRA files", o->n_loras);
    }
    for (uint32_t i = 0; i < o->n_loras; i++) {
        const attn_sag_lora *l = &o->loras[i];
        const double text = l->flags & ATTN_SAG_LORA_TEXT_SCALE ? l->text_encoder_scale : l->scale;
        choices[i] = (struct lora_choice){l->file, l->scale, text};
    }
    status = lora_set_open(choices, o->n_loras, &m->loras, err);
    free(choices);
    return status;
}

attn_status adapters_open(struct sag_components *m, const attn_sag_open_options *o, attn_error *err)
{
    attn_status status = ATTN_OK;
    if ((o->n_loras && !o->loras) || (o->n_inversions && !o->inversions)) {
        return attn_fail(err, ATTN_INVALID, "%s: %u, but the array is NULL",
                         o->n_loras && !o->loras ? "n_loras" : "n_inversions",
                         o->n_loras && !o->loras ? o->n_loras : o->n_inversions);
    }
    status = loras_open(m, o, err);
    if (!status && o->custom_diffusion) {
        status = custom_diffusion_open(m->compute, o->custom_diffusion, &m->custom, err);
    }
    return status;
}

attn_status adapters_done(const struct sag_components *m, const attn_sag_open_options *o,
                          attn_error *err)
{
    const int whole = !(o->flags & ATTN_SAG_PROMPTS_ONLY);
    const uint32_t flags =
        (o->flags & ATTN_SAG_LORA_IGNORE_UNKNOWN ? LORA_IGNORE : 0) | (whole ? 0 : LORA_TEXT_ALONE);
    attn_status status = lora_set_done(m->loras, flags, o->log, o->log_ctx, err);
    return status || !whole ? status : custom_diffusion_done(m->custom, err);
}

/* -- textual inversion ------------------------------------------------------------------------- */

static attn_status inversion_add(struct sag_components *m, const attn_sag_inversion *given,
                                 attn_error *err)
{
    struct inversion v;
    int32_t first;
    attn_status status = inversion_read(given->file, given->token, &v, err);
    if (status) {
        return status;
    }
    const int64_t width = text_encoder_width(m->text);
    if (v.width != width) {
        status = family_refuse(given->file, v.width, width, err);
    }
    if (!status) {
        status = text_encoder_extend(m->text, v.vectors, v.n, &first, err);
    }
    if (!status) {
        status = tokenizer_add(m->tokenizer, v.token, first, (int32_t)v.n, err);
    }
    inversion_clear(&v);
    return status;
}

attn_status inversions_load(struct sag_components *m, const attn_sag_open_options *o,
                            attn_error *err)
{
    attn_status status = ATTN_OK;
    for (uint32_t i = 0; i < o->n_inversions && !status; i++) {
        const attn_sag_inversion *given = &o->inversions[i];
        if (!given->file) {
            status = attn_fail(err, ATTN_INVALID, "textual inversion %u of %u: no file given",
                               i + 1, o->n_inversions);
        } else if (!m->tokenizer || !m->text) {
            status = attn_fail(err, ATTN_INVALID,
                               "%s: a textual inversion needs a model with a tokenizer and a text"
                               " encoder, %s has none",
                               given->file, m->files.model);
        } else {
            status = inversion_add(m, given, err);
        }
    }
    return status;
}
