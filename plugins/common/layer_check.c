#include "error.h"
#include "processor.h"

#include <inttypes.h>
#include <math.h>

static attn_status vector_check(const char *who, const char *key, const char *part,
                                const attn_tensor *t, int64_t length, attn_error *err)
{
    if (tensor_absent(t))
        return ATTN_OK;
    if (t->rank != 1)
        return attn_fail(err, ATTN_INVALID, "%s: %s.%s has rank %" PRIu32 ", expected 1", who, key,
                         part, t->rank);
    if (t->shape[0] != length)
        return attn_fail(err, ATTN_INVALID, "%s: %s.%s is [%" PRId64 "], expected [%" PRId64 "]",
                         who, key, part, t->shape[0], length);
    return ATTN_OK;
}

static attn_status matrix_check(const char *who, const char *key, const char *part,
                                const attn_tensor *t, int64_t out, int64_t in, attn_error *err)
{
    if (t->rank != 2)
        return attn_fail(err, ATTN_INVALID, "%s: %s.%s has rank %" PRIu32 ", expected 2", who, key,
                         part, t->rank);
    if (t->shape[0] != out || (in && t->shape[1] != in))
        return attn_fail(err, ATTN_INVALID,
                         "%s: %s.%s is [%" PRId64 ", %" PRId64 "], expected [%" PRId64 ", %" PRId64
                         "]",
                         who, key, part, t->shape[0], t->shape[1], out, in ? in : t->shape[1]);
    return ATTN_OK;
}

static attn_status term_check(const char *who, const char *key, const attn_linear *l, uint32_t i,
                              attn_error *err)
{
    const attn_term *term = &l->terms[i];
    if (term->kind != ATTN_TERM_LOW_RANK)
        return attn_fail(err, ATTN_UNSUPPORTED, "%s: %s has a term of unknown kind %" PRIu32, who,
                         key, term->kind);
    if (term->down.rank != 2 || term->down.shape[0] < 1)
        return attn_fail(err, ATTN_INVALID, "%s: %s has a low-rank term of rank 0", who, key);
    attn_status status = matrix_check(who, key, "lora.down.weight", &term->down,
                                      term->down.shape[0], l->weight.shape[1], err);
    if (status == ATTN_OK)
        status = matrix_check(who, key, "lora.up.weight", &term->up, l->weight.shape[0],
                              term->down.shape[0], err);
    return status;
}

attn_status linear_check(const char *who, const char *key, const attn_linear *l, int64_t out,
                         int64_t in, attn_error *err)
{
    if (tensor_absent(&l->weight))
        return attn_fail(err, ATTN_INVALID, "%s: %s.weight is missing", who, key);
    attn_status status = matrix_check(who, key, "weight", &l->weight, out, in, err);
    if (status == ATTN_OK)
        status = vector_check(who, key, "bias", &l->bias, out, err);
    if (status != ATTN_OK || !l->n_terms)
        return status;
    if (!l->terms)
        return attn_fail(err, ATTN_INVALID, "%s: %s has %" PRIu32 " terms at NULL", who, key,
                         l->n_terms);
    for (uint32_t i = 0; i < l->n_terms && status == ATTN_OK; i++)
        status = term_check(who, key, l, i, err);
    return status;
}

static attn_status norm_check(const char *who, const char *key, const attn_norm *n,
                              int64_t channels, attn_error *err)
{
    if (n->kind == ATTN_NORM_NONE)
        return ATTN_OK;
    if (n->kind > ATTN_NORM_SPATIAL)
        return attn_fail(err, ATTN_UNSUPPORTED, "%s: %s is of unknown kind %" PRIu32, who, key,
                         n->kind);
    if (!(n->eps >= 0.0f))
        return attn_fail(err, ATTN_INVALID, "%s: %s has eps %g, expected 0 or more", who, key,
                         (double)n->eps);
    if (channels == 0 && !tensor_absent(&n->weight))
        channels = n->weight.shape[0];
    if (n->kind != ATTN_NORM_LAYER &&
        (n->groups == 0 || (channels && channels % (int64_t)n->groups != 0)))
        return attn_fail(err, ATTN_INVALID,
                         "%s: %s has %" PRIu32 " groups, which do not divide %" PRId64 " channels",
                         who, key, n->groups, channels);
    attn_status status = vector_check(who, key, "weight", &n->weight, channels, err);
    if (status == ATTN_OK)
        status = vector_check(who, key, "bias", &n->bias, channels, err);
    if (status == ATTN_OK && n->kind == ATTN_NORM_SPATIAL) {
        status = linear_check(who, "spatial_norm.conv_y", &n->conv_y, channels, 0, err);
        if (status == ATTN_OK)
            status = linear_check(who, "spatial_norm.conv_b", &n->conv_b, channels,
                                  n->conv_y.weight.shape[1], err);
    }
    return status;
}

/* A linear that may be absent. */
static attn_status optional_check(const char *who, const char *key, const attn_linear *l,
                                  int64_t out, int64_t in, attn_error *err)
{
    return tensor_absent(&l->weight) ? ATTN_OK : linear_check(who, key, l, out, in, err);
}

/* The result has to_out's rows for channels: query_dim, unless diffusers' out_dim says otherwise.
 */
static attn_status output_check(const attn_binding *b, int64_t inner, attn_error *err)
{
    const attn_layer *l = b->layer;
    int64_t out = l->to_out.weight.rank == 2 ? l->to_out.weight.shape[0] : l->query_dim;
    if (l->flags & ATTN_LAYER_RESIDUAL)
        out = l->query_dim;
    return linear_check(b->who, "to_out.0", &l->to_out, out, inner, err);
}

attn_status layer_check(const attn_binding *b, attn_error *err)
{
    const attn_layer *l = b->layer;
    const char *who = b->who;
    if (l->heads < 1 || l->dim_head < 1 || l->query_dim < 1 || l->cross_dim < 1)
        return attn_fail(err, ATTN_INVALID,
                         "%s: heads %" PRId64 ", dim_head %" PRId64 ", query_dim %" PRId64
                         ", cross_dim %" PRId64 ", expected 1 or more each",
                         who, l->heads, l->dim_head, l->query_dim, l->cross_dim);
    if (!isfinite(l->scale))
        return attn_fail(err, ATTN_INVALID, "%s: scale is %g, expected a finite number", who,
                         (double)l->scale);
    if (!isfinite(l->rescale) || l->rescale == 0.0f)
        return attn_fail(err, ATTN_INVALID,
                         "%s: rescale_output_factor is %g, expected a finite number but 0", who,
                         (double)l->rescale);
    int64_t inner = 0;
    if (__builtin_mul_overflow(l->heads, l->dim_head, &inner))
        return attn_fail(err, ATTN_INVALID, "%s: heads %" PRId64 " times dim_head %" PRId64, who,
                         l->heads, l->dim_head);
    int64_t encoder = tensor_absent(&l->add_k.weight) ? l->cross_dim : 0;
    attn_status status = linear_check(who, "to_q", &l->to_q, inner, l->query_dim, err);
    if (status == ATTN_OK)
        status = optional_check(who, "to_k", &l->to_k, inner, l->cross_dim, err);
    if (status == ATTN_OK)
        status = optional_check(who, "to_v", &l->to_v, inner, l->cross_dim, err);
    if (status == ATTN_OK)
        status = optional_check(who, "add_k_proj", &l->add_k, inner, 0, err);
    if (status == ATTN_OK)
        status = optional_check(who, "add_v_proj", &l->add_v, inner, 0, err);
    if (status == ATTN_OK)
        status = output_check(b, inner, err);
    if (status == ATTN_OK)
        status = norm_check(who, "group_norm", &l->group_norm, l->query_dim, err);
    if (status == ATTN_OK)
        status = norm_check(who, "norm_cross", &l->norm_cross, encoder, err);
    if (status == ATTN_OK)
        status = norm_check(who, "spatial_norm", &l->spatial_norm, l->query_dim, err);
    return status;
}

attn_status layer_check_keys(const attn_binding *b, attn_error *err)
{
    const attn_layer *l = b->layer;
    if (tensor_absent(&l->to_k.weight))
        return attn_fail(err, ATTN_INVALID, "%s: to_k.weight is missing%s", b->who,
                         l->flags & ATTN_LAYER_ONLY_CROSS
                             ? ": a layer with only_cross_attention runs through added_kv"
                             : "");
    if (tensor_absent(&l->to_v.weight))
        return attn_fail(err, ATTN_INVALID, "%s: to_v.weight is missing", b->who);
    return ATTN_OK;
}
