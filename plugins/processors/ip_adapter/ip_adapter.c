/* ip_adapter: diffusers' IPAdapterAttnProcessor (v0.26.3
 * src/diffusers/models/attention_processor.py): beside the text, a layer attends to the tokens of
 * one or more image prompts.
 *
 *   q   = to_q(x)
 *   o   = attention(q, to_k(text), to_v(text)) + sum_i scale_i attention(q, to_k_ip.i(image_i),
 *                                                                       to_v_ip.i(image_i))
 *   out = (to_out(o) + hidden) / rescale
 *
 * All tokens of all pictures of an adapter are the keys of one attention.  Image branches have no
 * mask, and give neither lse nor key_mass nor probs: those are the text's.
 *
 * Check: meson test processors       Time: meson test --benchmark processors
 */
#include "error.h"
#include "forward.h"
#include "params.h"

#include <inttypes.h>
#include <math.h>

enum { ADAPTERS = 32, KEY = 64, NAME = KEY + 8 };

struct ip_adapter {
    uint32_t n;
    attn_linear to_k[ADAPTERS], to_v[ADAPTERS];
    double scale[ADAPTERS];
    int64_t num_tokens[ADAPTERS];
};

static const attn_param_info ip_adapter_infos[] = {
    {"to_k_ip.*.weight", ATTN_PARAM_TENSOR, ATTN_PARAM_REQUIRED,
     "[heads * dim_head, image channels], one for each adapter from 0"},
    {"to_v_ip.*.weight", ATTN_PARAM_TENSOR, ATTN_PARAM_REQUIRED,
     "[heads * dim_head, image channels], one for each adapter from 0"},
    {"num_tokens", ATTN_PARAM_INT, 0, "tokens of an image prompt: 4"},
    {"num_tokens.*", ATTN_PARAM_INT, 0, "the same, one for each adapter from 0"},
    {"scale", ATTN_PARAM_FLOAT, 0, "weight of every adapter: 1"},
    {"scale.*", ATTN_PARAM_FLOAT, 0, "weights, one for each adapter from 0"},
    {"hidden_size", ATTN_PARAM_INT, 0, "rows of to_k_ip: checked"},
    {"cross_attention_dim", ATTN_PARAM_INT, 0, "channels of the image prompts: checked"},
};
static const attn_param_list ip_adapter_params = {
    sizeof ip_adapter_params, sizeof ip_adapter_infos / sizeof *ip_adapter_infos, ip_adapter_infos};

/* -- parameters -------------------------------------------------------------------------------- */

struct reader {
    const attn_binding *b;
    const attn_param *params;
    uint32_t n;
    attn_error *err;
};

/* How many of the given names have the form "stem.<i>tail". */
static uint32_t reader_count(const struct reader *r, const char *pattern)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < r->n; i++)
        count += params_match(pattern, r->params[i].name) != 0;
    return count;
}

static attn_status reader_linear(const struct reader *r, const char *stem, uint32_t i,
                                 int64_t channels, attn_linear *linear)
{
    char key[KEY], name[NAME];
    (void)snprintf(key, sizeof key, "%s.%" PRIu32, stem, i);
    (void)snprintf(name, sizeof name, "%s.weight", key);
    const attn_param *p = params_find(r->params, r->n, name);
    if (!p)
        return attn_fail(r->err, ATTN_INVALID, "%s: %s is missing", r->b->who, name);
    linear->weight = *p->tensor;
    const attn_layer *l = r->b->layer;
    return linear_check(r->b->who, key, linear, l->heads * l->dim_head, channels, r->err);
}

static attn_status reader_adapters(const struct reader *r, struct ip_adapter *s)
{
    uint32_t keys = reader_count(r, "to_k_ip.*.weight");
    uint32_t values = reader_count(r, "to_v_ip.*.weight");
    uint32_t n = keys > values ? keys : values;
    if (n == 0)
        return attn_fail(r->err, ATTN_INVALID,
                         "%s: to_k_ip.0.weight is missing: no adapter is given", r->b->who);
    if (n > ADAPTERS)
        return attn_fail(r->err, ATTN_UNSUPPORTED, "%s: %" PRIu32 " adapters, at most %d",
                         r->b->who, n, ADAPTERS);
    attn_status status = ATTN_OK;
    for (uint32_t i = 0; i < n && status == ATTN_OK; i++) {
        status = reader_linear(r, "to_k_ip", i, 0, &s->to_k[i]);
        if (status == ATTN_OK)
            status = reader_linear(r, "to_v_ip", i, s->to_k[i].weight.shape[1], &s->to_v[i]);
    }
    s->n = n;
    return status;
}

/* A list "stem.0", "stem.1", ... has one entry for each adapter, or there is none of it. */
static attn_status reader_list(const struct reader *r, const char *stem, uint32_t n)
{
    char pattern[NAME];
    (void)snprintf(pattern, sizeof pattern, "%s.*", stem);
    uint32_t given = reader_count(r, pattern);
    if (given && given != n)
        return attn_fail(r->err, ATTN_INVALID,
                         "%s: parameter \"%s\" has %" PRIu32 " values for %" PRIu32 " adapters",
                         r->b->who, stem, given, n);
    if (given && params_find(r->params, r->n, stem))
        return attn_fail(r->err, ATTN_INVALID, "%s: parameter \"%s\" is given alone and as a list",
                         r->b->who, stem);
    for (uint32_t i = 0; i < given; i++) {
        char name[NAME];
        (void)snprintf(name, sizeof name, "%s.%" PRIu32, stem, i);
        if (!params_find(r->params, r->n, name))
            return attn_fail(r->err, ATTN_INVALID, "%s: parameter \"%s\" is missing", r->b->who,
                             name);
    }
    return ATTN_OK;
}

static attn_status reader_scales(const struct reader *r, struct ip_adapter *s)
{
    double all = 1;
    attn_status status = reader_list(r, "scale", s->n);
    if (status == ATTN_OK)
        status = params_float(r->params, r->n, "scale", &all, r->b->who, r->err);
    for (uint32_t i = 0; i < s->n && status == ATTN_OK; i++) {
        char name[NAME];
        (void)snprintf(name, sizeof name, "scale.%" PRIu32, i);
        s->scale[i] = all;
        status = params_float(r->params, r->n, name, &s->scale[i], r->b->who, r->err);
    }
    return status;
}

static attn_status reader_tokens(const struct reader *r, struct ip_adapter *s)
{
    int64_t all = 4;
    attn_status status = reader_list(r, "num_tokens", s->n);
    if (status == ATTN_OK)
        status = params_int(r->params, r->n, "num_tokens", 1, INT32_MAX, &all, r->b->who, r->err);
    if (status == ATTN_OK && s->n > 1 && params_find(r->params, r->n, "num_tokens"))
        status = attn_fail(r->err, ATTN_INVALID,
                           "%s: parameter \"num_tokens\" has 1 value for %" PRIu32 " adapters",
                           r->b->who, s->n);
    for (uint32_t i = 0; i < s->n && status == ATTN_OK; i++) {
        char name[NAME];
        (void)snprintf(name, sizeof name, "num_tokens.%" PRIu32, i);
        s->num_tokens[i] = all;
        status =
            params_int(r->params, r->n, name, 1, INT32_MAX, &s->num_tokens[i], r->b->who, r->err);
    }
    return status;
}

/* A dimension that upstream's constructor wants and that the weights have anyway. */
static attn_status reader_dimension(const struct reader *r, const char *name, int64_t expected)
{
    int64_t value = expected;
    attn_status status = params_int(r->params, r->n, name, 1, INT64_MAX, &value, r->b->who, r->err);
    if (status == ATTN_OK && value != expected)
        status = attn_fail(r->err, ATTN_INVALID,
                           "%s: parameter \"%s\" is %" PRId64 ", but the weights have %" PRId64,
                           r->b->who, name, value, expected);
    return status;
}

static attn_status ip_adapter_bind(attn_binding *b, const attn_param *params, uint32_t n,
                                   attn_work *work, attn_error *err)
{
    struct ip_adapter *s = b->state;
    const struct reader r = {.b = b, .params = params, .n = n, .err = err};
    (void)work;
    attn_status status = layer_check_keys(b, err);
    if (status == ATTN_OK)
        status = reader_adapters(&r, s);
    if (status == ATTN_OK)
        status = reader_scales(&r, s);
    if (status == ATTN_OK)
        status = reader_tokens(&r, s);
    if (status == ATTN_OK)
        status = reader_dimension(&r, "hidden_size", s->to_k[0].weight.shape[0]);
    if (status == ATTN_OK)
        status = reader_dimension(&r, "cross_attention_dim", s->to_k[0].weight.shape[1]);
    return status;
}

/* -- layer ------------------------------------------------------------------------------------- */

/* The call's scale of adapter i, or the one given at bind. */
static float ip_adapter_scale(struct forward *f, uint32_t i)
{
    const struct ip_adapter *s = f->binding->state;
    double scale = s->scale[i];
    char name[NAME];
    (void)snprintf(name, sizeof name, "ip_adapter_scale.%" PRIu32, i);
    attn_error *err = f->work->err;
    if (f->work->status == ATTN_OK)
        f->work->status =
            params_float(f->call->params, f->call->n_params, name, &scale, f->binding->who, err);
    return (float)scale;
}

/* Image prompts from where they are: the call's, or (one adapter) the end of the encoder states, as
 * upstream once had it.  call gets the encoder states without them. */
static const attn_tensor *ip_adapter_images(struct forward *f, attn_layer_call *call,
                                            attn_tensor *tail)
{
    const struct ip_adapter *s = f->binding->state;
    const attn_tensor *encoder = &f->call->encoder;
    *call = *f->call;
    if (!forward_has_encoder(f)) {
        forward_fail(f, ATTN_INVALID,
                     "encoder states are missing; without a text there is nothing "
                     "that an image prompt could stand beside");
        return NULL;
    }
    if (call->n_images == s->n)
        return call->images;
    if (call->n_images || s->n > 1) {
        forward_fail(f, ATTN_INVALID, "%" PRIu32 " image prompts for %" PRIu32 " adapters",
                     call->n_images, s->n);
        return NULL;
    }
    int64_t text = encoder->shape[1] - s->num_tokens[0];
    if (text < 1) {
        forward_fail(f, ATTN_INVALID,
                     "no image prompt, and encoder states of %" PRId64
                     " tokens cannot end with one of %" PRId64,
                     encoder->shape[1], s->num_tokens[0]);
        return NULL;
    }
    *tail = tensor_slice(encoder, 1, text, s->num_tokens[0]);
    tail->rank = 4;
    tail->shape[3] = tail->shape[2];
    tail->stride[3] = tail->stride[2];
    tail->shape[2] = tail->shape[1];
    tail->stride[2] = tail->stride[1];
    tail->shape[1] = 1;
    call->encoder = tensor_slice(encoder, 1, 0, text);
    return tail;
}

/* linear(image) for an image [B, images, tokens, channels], as [B, images * tokens, inner] that the
 * plan keeps. */
static attn_tensor ip_adapter_project(struct forward *f, const attn_tensor *image,
                                      const attn_linear *linear)
{
    int64_t pictures = image->shape[1], tokens = image->shape[2], inner = linear->weight.shape[0];
    attn_tensor y = forward_keep(f, f->batch, pictures * tokens, inner);
    if (forward_same(f))
        return y;
    attn_tensor split = y;
    split.rank = 4;
    split.shape[1] = pictures;
    split.shape[2] = tokens;
    split.shape[3] = inner;
    split.stride[1] = tokens * inner;
    split.stride[2] = inner;
    split.stride[3] = 1;
    forward_linear(f, image, linear, &split);
    return y;
}

/* o += scale * attention(q, image). */
static void ip_adapter_branch(struct forward *f, uint32_t i, const attn_tensor *image,
                              const attn_tensor *q, const attn_tensor *o)
{
    const struct ip_adapter *s = f->binding->state;
    if (image->rank != 4 || image->shape[0] != f->batch) {
        forward_fail(f, ATTN_INVALID,
                     "image prompt %" PRIu32 " is not [%" PRId64
                     ", images, tokens, channels]: rank %" PRIu32 ", batch %" PRId64,
                     i, f->batch, image->rank, image->rank ? image->shape[0] : 0);
        return;
    }
    uint64_t mark = f->work->used;
    float scale = ip_adapter_scale(f, i);
    attn_tensor k = ip_adapter_project(f, image, &s->to_k[i]);
    attn_tensor v = ip_adapter_project(f, image, &s->to_v[i]);
    attn_tensor seen = forward_take(f, f->batch, f->tokens, q->shape[2]);
    forward_attend(f, ATTENTION_IMAGE, q, &k, &v, &seen);
    if (f->work->status == ATTN_OK)
        f->compute->combine(f->work, 1.0f, o, scale, &seen, o);
    f->work->used = mark;
}

static void ip_adapter_forward(struct forward *f)
{
    const struct ip_adapter *s = f->binding->state;
    const attn_layer *l = f->layer;
    attn_layer_call call;
    attn_tensor tail, k, v;
    const attn_tensor *images = ip_adapter_images(f, &call, &tail);
    if (!images)
        return;
    f->call = &call;
    forward_enter(f);
    attn_tensor q = forward_project(f, &f->x, &l->to_q);
    forward_keys(f, &l->to_k, &l->to_v, &k, &v);
    attn_tensor o = forward_take(f, f->batch, f->tokens, q.shape[2]);
    forward_attend(f, ATTENTION_OWN, &q, &k, &v, &o);
    for (uint32_t i = 0; i < s->n && f->work->status == ATTN_OK; i++)
        ip_adapter_branch(f, i, &images[i], &q, &o);
    forward_leave(f, &o);
}

const struct processor_kind processor_kind = {
    .name = "ip_adapter",
    .params = &ip_adapter_params,
    .state_bytes = sizeof(struct ip_adapter),
    .bind = ip_adapter_bind,
    .forward = ip_adapter_forward,
};

PROCESSOR_EXPORT("ip_adapter", ATTN_HEAD_TERMS,
                 "diffusers' IPAdapterAttnProcessor: image prompts beside the text");
