/* weights_lora.c: the low-rank terms that LoRA files have for a model's linears and convolutions.
 */
#include "weights_private.h"

/* The pairs that the files have for a module: slots[n] and pairs[n], in the files' order. */
struct pairs {
    struct lora_pair of[LORA_MOST_FILES];
    uint32_t slots[LORA_MOST_FILES];
    uint32_t n;
    struct lora_set *set;
};

static void pairs_take(struct weights *w, const char *name, struct pairs *p)
{
    p->set = w->loras;
    p->n = 0;
    if (w->status != ATTN_OK) {
        return;
    }
    for (uint32_t i = 0; i < lora_set_count(p->set); i++) {
        if (lora_set_take(p->set, i, w->component, name, &p->of[p->n])) {
            p->slots[p->n++] = i;
        }
    }
}

/* The same numbers as a matrix or as the weight of a convolution: sides of 1 come and go. */
static int has_shape(const safetensors_tensor *t, uint32_t rank, const int64_t *shape)
{
    const uint32_t most = t->rank > rank ? t->rank : rank;
    for (uint32_t i = 0; i < most; i++) {
        if ((i < t->rank ? t->shape[i] : 1) != (i < rank ? shape[i] : 1)) {
            return 0;
        }
    }
    return 1;
}

/* One tensor of a pair in this shape. */
static attn_tensor host_part(struct weights *w, const struct pairs *p, uint32_t i,
                             const safetensors_tensor *t, uint32_t rank, const int64_t *shape)
{
    const attn_tensor absent = {0};
    char found[SHAPE_BYTES];
    char expected[SHAPE_BYTES];
    if (w->status != ATTN_OK) {
        return absent;
    }
    if (!has_shape(t, rank, shape)) {
        weights_fail(w, ATTN_INVALID, "%s: %s is %s, this model's module takes %s",
                     lora_set_path(p->set, p->slots[i]), t->name,
                     shape_text(found, t->rank, t->shape), shape_text(expected, rank, shape));
        return absent;
    }
    return weights_view(w, t, rank, shape);
}

void weights_lora_linear(struct weights *w, attn_linear *linear, const char *name)
{
    struct pairs p;
    attn_term *terms;
    pairs_take(w, name, &p);
    terms = p.n ? weights_alloc(w, p.n, sizeof(*terms)) : NULL;
    for (uint32_t i = 0; terms && i < p.n; i++) {
        const struct lora_pair *pair = &p.of[i];
        const int64_t rank = pair->down->shape[0];
        const int64_t down_shape[] = {rank, linear->weight.shape[1]};
        const int64_t up_shape[] = {linear->weight.shape[0], rank};
        const attn_tensor down = host_part(w, &p, i, pair->down, 2, down_shape);
        const attn_tensor up = host_part(w, &p, i, pair->up, 2, up_shape);
        terms[i] = (attn_term){.kind = ATTN_TERM_LOW_RANK,
                               .slot = p.slots[i],
                               .factor = pair->factor,
                               .down = weights_upload(w, &down, NULL),
                               .up = weights_upload(w, &up, NULL)};
    }
    linear->terms = terms;
    linear->n_terms = terms ? p.n : 0;
}

void weights_lora_conv(struct weights *w, struct conv_desc *desc, const char *name)
{
    struct pairs p;
    struct conv_term *terms;
    pairs_take(w, name, &p);
    terms = p.n ? weights_alloc(w, p.n, sizeof(*terms)) : NULL;
    for (uint32_t i = 0; terms && i < p.n; i++) {
        const struct lora_pair *pair = &p.of[i];
        const int64_t rank = pair->down->shape[0];
        const int64_t down_shape[] = {rank, desc->in_channels, desc->kernel, desc->kernel};
        const int64_t up_shape[] = {desc->out_channels, rank};
        const attn_tensor up = host_part(w, &p, i, pair->up, 2, up_shape);
        terms[i] = (struct conv_term){.slot = p.slots[i],
                                      .factor = pair->factor,
                                      .down = host_part(w, &p, i, pair->down, 4, down_shape),
                                      .up = weights_upload(w, &up, NULL)};
    }
    desc->terms = terms;
    desc->n_terms = terms ? p.n : 0;
}
