/* custom_diffusion: diffusers' CustomDiffusionAttnProcessor (v0.26.3
 * src/diffusers/models/attention_processor.py): a layer of which some projections were trained
 * anew.
 *
 *   e   = norm_cross(encoder), or hidden where there are no encoder states
 *   out = to_out*(attention(to_q*(hidden), to_k*(e), to_v*(e)))      * trained, where it was
 *
 * The layer's other norms, its residual and its rescaling are left out, as upstream.  A layer
 * without trained weights is the plain one, with all of them.  (The "detach" of the first token
 * concerns training alone.)
 *
 * Check: meson test processors       Time: meson test --benchmark processors
 */
#include "error.h"
#include "forward.h"
#include "params.h"

#include <inttypes.h>
#include <string.h>

struct custom_diffusion {
    int64_t train_kv, train_q_out;
    attn_linear to_q, to_k, to_v, to_out; /* the trained ones */
};

#define TO_Q   "to_q_custom_diffusion"
#define TO_K   "to_k_custom_diffusion"
#define TO_V   "to_v_custom_diffusion"
#define TO_OUT "to_out_custom_diffusion.0"

static const attn_param_info custom_diffusion_infos[] = {
    {"train_kv", ATTN_PARAM_INT, 0, "keys and values were trained: 0 or 1; as weights are given"},
    {"train_q_out", ATTN_PARAM_INT, 0,
     "to_q and to_out were trained: 0 or 1; as weights are given"},
    {"hidden_size", ATTN_PARAM_INT, 0, "channels of the hidden states: checked"},
    {"cross_attention_dim", ATTN_PARAM_INT, 0, "channels of the encoder states: checked"},
    {"out_bias", ATTN_PARAM_INT, 0, "the trained to_out has a bias: 0 or 1; as it is given"},
    {"dropout", ATTN_PARAM_FLOAT, 0, "of training: 0 to 1; without effect here"},
    {TO_K ".weight", ATTN_PARAM_TENSOR, 0, "[heads * dim_head, encoder channels]"},
    {TO_V ".weight", ATTN_PARAM_TENSOR, 0, "[heads * dim_head, encoder channels]"},
    {TO_Q ".weight", ATTN_PARAM_TENSOR, 0, "[heads * dim_head, hidden channels]"},
    {TO_OUT ".weight", ATTN_PARAM_TENSOR, 0, "[hidden channels, heads * dim_head]"},
    {TO_OUT ".bias", ATTN_PARAM_TENSOR, 0, "[hidden channels]"},
};
static const attn_param_list custom_diffusion_params = {
    sizeof custom_diffusion_params, sizeof custom_diffusion_infos / sizeof *custom_diffusion_infos,
    custom_diffusion_infos};

/* -- parameters -------------------------------------------------------------------------------- */

struct reader {
    const attn_binding *b;
    const attn_param *params;
    uint32_t n;
    attn_error *err;
};

static const attn_tensor *reader_tensor(const struct reader *r, const char *name)
{
    const attn_param *p = params_find(r->params, r->n, name);
    return p ? p->tensor : NULL;
}

/* A dimension that upstream's constructor wants and that the layer has anyway. */
static attn_status reader_dimension(const struct reader *r, const char *name, int64_t expected)
{
    int64_t value = expected;
    attn_status status = params_int(r->params, r->n, name, 1, INT64_MAX, &value, r->b->who, r->err);
    if (status == ATTN_OK && value != expected)
        status = attn_fail(r->err, ATTN_INVALID,
                           "%s: parameter \"%s\" is %" PRId64 ", but the layer has %" PRId64,
                           r->b->who, name, value, expected);
    return status;
}

/* One trained linear.  `trained` is what its flag says: the weight is there if and only if so. */
static attn_status reader_linear(const struct reader *r, const char *key, int64_t trained,
                                 const attn_linear *replaced, attn_linear *linear)
{
    char name[64];
    (void)snprintf(name, sizeof name, "%s.weight", key);
    const attn_tensor *weight = reader_tensor(r, name);
    if (!trained && weight)
        return attn_fail(r->err, ATTN_INVALID, "%s: %s is given, but was not trained (%s is 0)",
                         r->b->who, name,
                         strstr(key, "_k_") || strstr(key, "_v_") ? "train_kv" : "train_q_out");
    if (!trained)
        return ATTN_OK;
    if (replaced->n_terms)
        return attn_fail(r->err, ATTN_UNSUPPORTED,
                         "%s: low-rank terms on a linear that %s replaces would be lost", r->b->who,
                         key);
    if (!weight)
        return attn_fail(r->err, ATTN_INVALID, "%s: %s is missing", r->b->who, name);
    linear->weight = *weight;
    return linear_check(r->b->who, key, linear, replaced->weight.shape[0],
                        replaced->weight.shape[1], r->err);
}

static attn_status reader_bias(const struct reader *r, struct custom_diffusion *s)
{
    const attn_tensor *bias = reader_tensor(r, TO_OUT ".bias");
    int64_t wanted = bias != NULL;
    attn_status status = params_int(r->params, r->n, "out_bias", 0, 1, &wanted, r->b->who, r->err);
    if (status != ATTN_OK)
        return status;
    if (bias && (!wanted || !s->train_q_out))
        return attn_fail(r->err, ATTN_INVALID, "%s: %s is given, but %s is 0", r->b->who,
                         TO_OUT ".bias", wanted ? "train_q_out" : "out_bias");
    if (!bias && wanted && s->train_q_out)
        return attn_fail(r->err, ATTN_INVALID, "%s: %s is missing", r->b->who, TO_OUT ".bias");
    if (bias)
        s->to_out.bias = *bias;
    return ATTN_OK;
}

static attn_status reader_scalars(const struct reader *r, struct custom_diffusion *s)
{
    const attn_layer *l = r->b->layer;
    double dropout = 0;
    s->train_kv = reader_tensor(r, TO_K ".weight") || reader_tensor(r, TO_V ".weight");
    s->train_q_out = reader_tensor(r, TO_Q ".weight") || reader_tensor(r, TO_OUT ".weight");
    attn_status status =
        params_int(r->params, r->n, "train_kv", 0, 1, &s->train_kv, r->b->who, r->err);
    if (status == ATTN_OK)
        status =
            params_int(r->params, r->n, "train_q_out", 0, 1, &s->train_q_out, r->b->who, r->err);
    if (status == ATTN_OK)
        status = params_float(r->params, r->n, "dropout", &dropout, r->b->who, r->err);
    if (status == ATTN_OK && (dropout < 0 || dropout > 1))
        status = attn_fail(r->err, ATTN_INVALID, "%s: parameter \"dropout\" is %g, expected 0 to 1",
                           r->b->who, dropout);
    if (status == ATTN_OK)
        status = reader_dimension(r, "hidden_size", l->query_dim);
    if (status == ATTN_OK)
        status = reader_dimension(r, "cross_attention_dim", l->cross_dim);
    return status;
}

static attn_status custom_diffusion_bind(attn_binding *b, const attn_param *params, uint32_t n,
                                         attn_work *work, attn_error *err)
{
    struct custom_diffusion *s = b->state;
    const struct reader r = {.b = b, .params = params, .n = n, .err = err};
    const attn_layer *l = b->layer;
    (void)work;
    attn_status status = layer_check_keys(b, err);
    if (status == ATTN_OK)
        status = reader_scalars(&r, s);
    if (status == ATTN_OK)
        status = reader_bias(&r, s);
    if (status == ATTN_OK)
        status = reader_linear(&r, TO_Q, s->train_q_out, &l->to_q, &s->to_q);
    if (status == ATTN_OK)
        status = reader_linear(&r, TO_K, s->train_kv, &l->to_k, &s->to_k);
    if (status == ATTN_OK)
        status = reader_linear(&r, TO_V, s->train_kv, &l->to_v, &s->to_v);
    if (status == ATTN_OK)
        status = reader_linear(&r, TO_OUT, s->train_q_out, &l->to_out, &s->to_out);
    return status;
}

/* -- layer ------------------------------------------------------------------------------------- */

static void custom_diffusion_forward(struct forward *f)
{
    const struct custom_diffusion *s = f->binding->state;
    const attn_layer *l = f->layer;
    attn_tensor k, v;
    if (!s->train_kv && !s->train_q_out) {
        forward_standard(f);
        return;
    }
    attn_tensor q = forward_project(f, &f->x, s->train_q_out ? &s->to_q : &l->to_q);
    forward_keys(f, s->train_kv ? &s->to_k : &l->to_k, s->train_kv ? &s->to_v : &l->to_v, &k, &v);
    attn_tensor o = forward_take(f, f->batch, f->tokens, q.shape[2]);
    forward_attend(f, ATTENTION_OWN, &q, &k, &v, &o);
    forward_output(f, &o, s->train_q_out ? &s->to_out : &l->to_out, NULL, 1.0f);
}

const struct processor_kind processor_kind = {
    .name = "custom_diffusion",
    .params = &custom_diffusion_params,
    .state_bytes = sizeof(struct custom_diffusion),
    .bind = custom_diffusion_bind,
    .forward = custom_diffusion_forward,
};

PROCESSOR_EXPORT("custom_diffusion", ATTN_HEAD_TERMS,
                 "diffusers' CustomDiffusionAttnProcessor: projections that were trained anew");
