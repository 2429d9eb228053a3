#include "staged_layer.h"
#include "pass.h"

#include <stdlib.h>

/* -- host tensors of any strides --------------------------------------------------------------- */

/* Copies elements between a strided and a packed tensor of one shape and type. */
static void elements_move(const attn_tensor *strided, char *packed, bool out)
{
    const attn_tensor t = tensor_rank4(strided);
    const size_t bytes = t.bits / 8u;
    int64_t i[4];
    for (i[0] = 0; i[0] < t.shape[0]; ++i[0])
        for (i[1] = 0; i[1] < t.shape[1]; ++i[1])
            for (i[2] = 0; i[2] < t.shape[2]; ++i[2])
                for (i[3] = 0; i[3] < t.shape[3]; ++i[3], packed += bytes) {
                    int64_t at = 0;
                    for (int d = 0; d < 4; ++d)
                        at += i[d] * t.stride[d];
                    char *element = (char *)t.data + at * (int64_t)bytes;
                    memcpy(out ? element : packed, out ? packed : element, bytes);
                }
}

/* t itself where it is packed, else a packed view of new memory, which *memory gets. */
static attn_status packed_of(const attn_tensor *t, attn_tensor *packed, void **memory,
                             attn_error *err)
{
    *packed = *t;
    *memory = NULL;
    if (!t->data && tensor_count(t))
        return attn_fail(err, ATTN_INVALID, "tensor %s has no data", tensor_describe(t).text);
    if (tensor_contiguous(t))
        return ATTN_OK;
    *memory = malloc(tensor_bytes(t) + 1);
    packed->data = *memory;
    tensor_pack_strides(packed);
    return *memory
               ? ATTN_OK
               : attn_fail(err, ATTN_NOMEM, "no memory for a copy of %s", tensor_describe(t).text);
}

/* -- weights ----------------------------------------------------------------------------------- */

struct staged_weights {
    struct compute *compute;
    attn_layer layer;
    attn_layer_spec spec;
    attn_param *params;
    attn_term *terms;     /* of all linears, one after another */
    attn_tensor *tensors; /* those of the parameters; then every copy, to be unloaded */
    uint32_t n_terms, n_copies, capacity;
    attn_tensor *copies;
    attn_status status;
    attn_error *err;
};

/* In place: a tensor in host memory becomes its copy, of its own element type where that is a
 * float's but fp64's, as compute takes them. */
static void tensor_stage(struct staged_weights *s, attn_tensor *t)
{
    void *memory;
    attn_tensor packed;
    if (s->status != ATTN_OK || !tensor_here(t) || t->device_type != ATTN_DEVICE_CPU)
        return;
    s->status = packed_of(t, &packed, &memory, s->err);
    if (s->status != ATTN_OK)
        return;
    if (memory)
        elements_move(t, memory, false);
    s->status = s->compute->api->upload(s->compute, &packed, NULL, t, s->err);
    free(memory);
    if (s->status == ATTN_OK)
        s->copies[s->n_copies++] = *t;
}

static void linear_stage(struct staged_weights *s, attn_linear *l)
{
    tensor_stage(s, &l->weight);
    tensor_stage(s, &l->bias);
    if (!l->n_terms)
        return;
    attn_term *terms = s->terms + s->n_terms;
    memcpy(terms, l->terms, l->n_terms * sizeof *terms);
    for (uint32_t i = 0; i < l->n_terms; ++i) {
        tensor_stage(s, &terms[i].down);
        tensor_stage(s, &terms[i].up);
    }
    l->terms = terms;
    s->n_terms += l->n_terms;
}

/* Every place of a layer that holds a linear: whatever the norms' kinds, since all are staged. */
enum { LINEARS = 12, NORMS = 3 };
static void linears_of(attn_layer *l, attn_linear *out[LINEARS])
{
    attn_linear *all[LINEARS] = {&l->to_q,
                                 &l->to_k,
                                 &l->to_v,
                                 &l->to_out,
                                 &l->add_k,
                                 &l->add_v,
                                 &l->group_norm.conv_y,
                                 &l->group_norm.conv_b,
                                 &l->norm_cross.conv_y,
                                 &l->norm_cross.conv_b,
                                 &l->spatial_norm.conv_y,
                                 &l->spatial_norm.conv_b};
    memcpy(out, all, sizeof all);
}

static void layer_stage(struct staged_weights *s)
{
    attn_layer *l = &s->layer;
    attn_linear *linears[LINEARS];
    attn_norm *norms[NORMS] = {&l->group_norm, &l->norm_cross, &l->spatial_norm};
    linears_of(l, linears);
    for (int i = 0; i < LINEARS; ++i)
        linear_stage(s, linears[i]);
    for (int i = 0; i < NORMS; ++i) {
        tensor_stage(s, &norms[i]->weight);
        tensor_stage(s, &norms[i]->bias);
    }
}

static attn_status tables_take(struct staged_weights *s, const attn_layer_spec *spec)
{
    attn_linear *linears[LINEARS];
    uint32_t terms = 0;
    linears_of(&s->layer, linears);
    for (int i = 0; i < LINEARS; ++i)
        terms += linears[i]->n_terms;
    s->capacity = 2 * LINEARS + 2 * NORMS + 2 * terms + spec->n_params;
    s->terms = calloc(terms + 1, sizeof *s->terms);
    s->params = calloc(spec->n_params + 1, sizeof *s->params);
    s->tensors = calloc(spec->n_params + 1, sizeof *s->tensors);
    s->copies = calloc(s->capacity, sizeof *s->copies);
    return s->terms && s->params && s->tensors && s->copies
               ? ATTN_OK
               : attn_fail(s->err, ATTN_NOMEM, "no memory for a layer's copies");
}

static void params_stage(struct staged_weights *s)
{
    for (uint32_t i = 0; i < s->spec.n_params; ++i) {
        if (s->params[i].kind != ATTN_PARAM_TENSOR || !s->params[i].tensor)
            continue;
        s->tensors[i] = *s->params[i].tensor;
        tensor_stage(s, &s->tensors[i]);
        s->params[i].tensor = &s->tensors[i];
    }
}

attn_status staged_weights_open(struct compute *c, const attn_layer *layer,
                                const attn_layer_spec *spec, struct staged_weights **out,
                                attn_error *err)
{
    struct staged_weights *s = calloc(1, sizeof *s);
    if (!s)
        return attn_fail(err, ATTN_NOMEM, "no memory for a layer's copies");
    s->compute = c;
    s->err = err;
    s->spec = *spec;
    memcpy(&s->layer, layer, layer->size < sizeof *layer ? layer->size : sizeof *layer);
    s->status = tables_take(s, spec);
    if (s->status == ATTN_OK) {
        if (spec->n_params)
            memcpy(s->params, spec->params, spec->n_params * sizeof *s->params);
        s->spec.params = s->params;
        layer_stage(s);
        params_stage(s);
    }
    if (s->status != ATTN_OK) {
        attn_status status = s->status;
        staged_weights_close(s);
        return status;
    }
    s->err = NULL;
    *out = s;
    return ATTN_OK;
}

void staged_weights_close(struct staged_weights *s)
{
    if (!s)
        return;
    while (s->n_copies)
        s->compute->api->unload(s->compute, &s->copies[--s->n_copies]);
    free(s->copies);
    free(s->tensors);
    free(s->params);
    free(s->terms);
    free(s);
}

const attn_layer *staged_layer(const struct staged_weights *s)
{
    return &s->layer;
}

const attn_layer_spec *staged_spec(const struct staged_weights *s)
{
    return &s->spec;
}

/* -- a call ------------------------------------------------------------------------------------ */

/* Scratch at the device for t: hidden states and what becomes of them in the compute's type. */
static attn_tensor like(attn_work *w, const attn_tensor *t, bool computed)
{
    return tensor_here(t) ? work_take(w, computed ? NULL : t, t->rank, t->shape) : (attn_tensor){0};
}

/* packed_of, for a tensor of a call. */
static bool call_packed(attn_work *w, const attn_tensor *t, attn_tensor *packed, void **memory)
{
    ATTN_ERROR_ON(why, 256);
    attn_status status = packed_of(t, packed, memory, &why);
    if (status != ATTN_OK)
        work_fail(w, status, "%s", why.text);
    return status == ATTN_OK;
}

static attn_tensor copy_in(attn_work *w, const attn_tensor *t, bool computed)
{
    void *memory;
    attn_tensor to = like(w, t, computed), packed;
    if (!tensor_here(t) || w->status != ATTN_OK || !call_packed(w, t, &packed, &memory))
        return to;
    if (memory && !work_dry(w))
        elements_move(t, memory, false);
    work_compute(w)->api->write(w, &packed, &to);
    free(memory);
    return to;
}

/* Waits for the result. */
static void copy_out(attn_work *w, const attn_tensor *from, const attn_tensor *t)
{
    void *memory;
    attn_tensor packed;
    if (!tensor_here(t) || w->status != ATTN_OK || !call_packed(w, t, &packed, &memory))
        return;
    work_compute(w)->api->read(w, from, &packed);
    work_compute(w)->api->synchronize(w);
    if (memory && !work_dry(w) && w->status == ATTN_OK)
        elements_move(t, memory, true);
    free(memory);
}

attn_status staged_run(attn_work *w, struct layer *l, const attn_layer_call *call)
{
    const uint64_t mark = work_mark(w);
    attn_layer_call at = *call;
    attn_tensor *images = call->n_images ? calloc(call->n_images, sizeof *images) : NULL;
    if (call->n_images && !images)
        return work_fail(w, ATTN_NOMEM, "no memory for %u images", call->n_images);
    at.hidden = copy_in(w, &call->hidden, true);
    at.encoder = copy_in(w, &call->encoder, true);
    at.bias = copy_in(w, &call->bias, true);
    at.mask = copy_in(w, &call->mask, false);
    at.temb = copy_in(w, &call->temb, true);
    for (uint32_t i = 0; i < call->n_images; ++i)
        images[i] = copy_in(w, &call->images[i], true);
    at.images = images;
    at.out = like(w, &call->out, true);
    at.lse = like(w, &call->lse, false);
    at.key_mass = like(w, &call->key_mass, false);
    at.probs = like(w, &call->probs, false);
    layer_run(w, l, &at);
    copy_out(w, &at.out, &call->out);
    copy_out(w, &at.lse, &call->lse);
    copy_out(w, &at.key_mass, &call->key_mass);
    copy_out(w, &at.probs, &call->probs);
    work_reset(w, mark);
    free(images);
    return w->status;
}
