/* Calls with their memory: layouts, inputs, poison and guards. */
#include "harness.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define GUARD      64
#define GUARD_BYTE 0xa5

static void type_set(attn_tensor *t, enum dtype dtype)
{
    t->code = dtype == BF16 ? ATTN_CODE_BFLOAT : ATTN_CODE_FLOAT;
    t->bits = dtype == F32 ? 32 : 16;
    t->lanes = 1;
    t->align = t->bits / 8;
    t->device_type = ATTN_DEVICE_CPU;
}

/* Memory for a tensor whose shape and strides stand; data points at element 0. */
static void tensor_allocate(struct data *data, attn_tensor *t)
{
    int64_t low = 0, high = 0;
    for (uint32_t i = 0; i < t->rank; i++) {
        int64_t reach = t->shape[i] > 0 ? (t->shape[i] - 1) * t->stride[i] : 0;
        if (reach < 0)
            low += reach;
        else
            high += reach;
    }
    size_t bytes = (size_t)(high - low + 1) * (t->bits / 8);
    struct buffer *buffer = &data->buffers[data->n_buffers++];
    buffer->bytes = bytes;
    buffer->base = malloc(bytes + 2 * GUARD);
    if (!buffer->base)
        abort();
    memset(buffer->base, GUARD_BYTE, bytes + 2 * GUARD);
    t->data = buffer->base + GUARD - low * (t->bits / 8);
}

static attn_tensor tensor_of(struct data *data, enum dtype dtype, enum layout layout, int64_t b,
                             int64_t h, int64_t n, int64_t d)
{
    attn_tensor t = {.rank = 4, .shape = {b, h, n, d}};
    type_set(&t, dtype);
    int64_t column = layout == SCATTERED ? 3 : 1;
    int64_t row = layout == SCATTERED ? d * 3 + 5 : d;
    int64_t heads[4] = {h * n * row, n * row, row, column};
    int64_t tokens[4] = {n * h * row, row, h * row, column};
    memcpy(t.stride, layout == TOKENS_FIRST ? tokens : heads, sizeof t.stride);
    if (layout == BACKWARDS)
        t.stride[2] = -row;
    tensor_allocate(data, &t);
    return t;
}

static attn_tensor tensor_packed(struct data *data, uint32_t rank, int64_t a, int64_t b, int64_t c)
{
    attn_tensor t = {.rank = rank, .shape = {a, b, c}};
    type_set(&t, F32);
    int64_t inner = rank == 3 ? c : 1;
    t.stride[0] = b * inner;
    t.stride[1] = inner;
    t.stride[2] = 1;
    tensor_allocate(data, &t);
    return t;
}

/* [B, H, Nq, Nk] with the axes kept that `axes` has a bit for; the others are broadcast. */
static attn_tensor tensor_pairs(struct data *data, unsigned axes, const attn_tensor *like)
{
    const struct config *c = &data->config;
    attn_tensor t = *like;
    int64_t shape[4] = {c->batch, c->heads, c->nq, c->nk}, step = 1;
    t.rank = 4;
    for (int i = 3; i >= 0; i--) {
        t.shape[i] = shape[i];
        t.stride[i] = axes >> i & 1 ? step : 0;
        step *= axes >> i & 1 ? shape[i] : 1;
    }
    tensor_allocate(data, &t);
    return t;
}

static void fill_normal(const attn_tensor *t, uint64_t *state)
{
    for (int64_t b = 0; b < t->shape[0]; b++)
        for (int64_t h = 0; h < t->shape[1]; h++)
            for (int64_t i = 0; i < t->shape[2]; i++)
                for (int64_t j = 0; j < t->shape[3]; j++)
                    tensor_set(t, (int64_t[4]){b, h, i, j}, random_normal(state));
}

static void make_bias(struct data *data, uint64_t *state)
{
    const struct config *c = &data->config;
    static const unsigned axes[BIASES] = {0, 15, 1 | 8, 4, 15, 15};
    attn_tensor like = {0};
    type_set(&like, c->bias_dtype);
    attn_tensor *t = &data->call.bias;
    *t = tensor_pairs(data, axes[c->bias], &like);
    fill_normal(t, state);
    /* A whole row of a huge bias leaves equal scores: it masks nothing. */
    for (int64_t i = 0; i < c->nq && c->nk > 0; i++)
        for (int64_t j = 0; j < c->nk; j++)
            for (int64_t k = 0; k < c->batch * c->heads; k++) {
                int64_t at[4] = {k / c->heads, k % c->heads, i, j};
                if (c->bias == HUGE_BIAS && i % 2 == 0 && c->bias_dtype != F16)
                    tensor_set(t, at, -3e38);
                else if (c->bias == HUGE_BIAS && j % 2 == 0 && c->nk > 1)
                    tensor_set(t, at, -1e4);
                if (c->bias == INFINITE_BIAS && (i == 1 || random_unit(state) < 0.3))
                    tensor_set(t, at, -INFINITY);
            }
}

static void make_mask(struct data *data, uint64_t *state)
{
    const struct config *c = &data->config;
    static const unsigned axes[MASKS] = {0, 15, 1 | 8, 15};
    attn_tensor like = {.code = ATTN_CODE_UINT, .bits = 8, .lanes = 1, .align = 1};
    like.device_type = ATTN_DEVICE_CPU;
    attn_tensor *t = &data->call.mask;
    *t = tensor_pairs(data, axes[c->mask], &like);
    for (int64_t b = 0; b < c->batch; b++)
        for (int64_t h = 0; h < c->heads; h++)
            for (int64_t i = 0; i < c->nq; i++)
                for (int64_t j = 0; j < c->nk; j++) {
                    int hidden = c->mask == NO_KEYS || random_unit(state) < 0.3 ||
                                 (c->mask == FULL_MASK && i == c->nq / 2);
                    double byte = hidden ? 0.0 : 1.0 + floor(random_unit(state) * 255.0);
                    tensor_set(t, (int64_t[4]){b, h, i, j}, byte);
                }
}

void data_make(struct data *data, const struct config *c, uint64_t seed)
{
    uint64_t state = seed;
    memset(data, 0, sizeof *data);
    data->config = *c;
    attn_op_call *call = &data->call;
    call->size = sizeof *call;
    call->scale = c->scale;
    call->q = tensor_of(data, c->dtype, c->layout, c->batch, c->heads, c->nq, c->d);
    call->k = tensor_of(data, c->dtype, c->layout, c->batch, c->kv_heads, c->nk, c->d);
    call->v = tensor_of(data, c->dtype, c->layout, c->batch, c->kv_heads, c->nk, c->dv);
    call->out = tensor_of(data, c->dtype, c->layout, c->batch, c->heads, c->nq, c->dv);
    fill_normal(&call->q, &state);
    fill_normal(&call->k, &state);
    fill_normal(&call->v, &state);
    if (c->bias != NO_BIAS)
        make_bias(data, &state);
    if (c->mask != NO_MASK)
        make_mask(data, &state);
    if (c->lse)
        call->lse = tensor_packed(data, 3, c->batch, c->heads, c->nq);
    if (c->mass)
        call->key_mass = tensor_packed(data, 2, c->batch, c->nk, 0);
    if (c->probs) {
        call->probs = tensor_pairs(data, 15, &call->q);
        free(data->buffers[--data->n_buffers].base);
        type_set(&call->probs, F32);
        tensor_allocate(data, &call->probs);
    }
    if (c->band) {
        call->flags |= ATTN_CALL_BAND;
        call->band_lo = c->lo;
        call->band_hi = c->hi;
    }
}

static void tensor_copy(const attn_tensor *to, const attn_tensor *from)
{
    for (int64_t b = 0; b < to->shape[0]; b++)
        for (int64_t h = 0; h < to->shape[1]; h++)
            for (int64_t i = 0; i < to->shape[2]; i++)
                for (int64_t j = 0; j < to->shape[3]; j++) {
                    int64_t at[4] = {b, h, i, j};
                    tensor_set(to, at, tensor_get(from, at));
                }
}

void data_widen(struct data *wide, const struct data *from)
{
    struct config c = from->config;
    c.dtype = c.bias_dtype = F32;
    c.layout = HEADS_FIRST;
    c.lse = c.mass = c.probs = 1;
    data_make(wide, &c, 1);
    tensor_copy(&wide->call.q, &from->call.q);
    tensor_copy(&wide->call.k, &from->call.k);
    tensor_copy(&wide->call.v, &from->call.v);
    if (c.bias != NO_BIAS)
        tensor_copy(&wide->call.bias, &from->call.bias);
    if (c.mask != NO_MASK)
        tensor_copy(&wide->call.mask, &from->call.mask);
}

void data_free(struct data *data)
{
    for (int i = 0; i < data->n_buffers; i++)
        free(data->buffers[i].base);
    data->n_buffers = 0;
}

static void poison(const attn_tensor *t)
{
    for (int64_t b = 0; t->rank && b < t->shape[0]; b++)
        for (int64_t h = 0; h < t->shape[1]; h++)
            for (int64_t i = 0; i < (t->rank > 2 ? t->shape[2] : 1); i++)
                for (int64_t j = 0; j < (t->rank > 3 ? t->shape[3] : 1); j++)
                    tensor_set(t, (int64_t[4]){b, h, i, j}, (double)NAN);
}

static void check_guards(const struct data *data, const char *scratch, size_t bytes)
{
    for (int i = 0; i < data->n_buffers; i++) {
        const unsigned char *p = (const unsigned char *)data->buffers[i].base;
        for (size_t j = 0; j < GUARD; j++)
            if (p[j] != GUARD_BYTE || p[GUARD + data->buffers[i].bytes + j] != GUARD_BYTE)
                fail_msg("buffer %d: written outside", i);
    }
    for (size_t j = 0; j < GUARD; j++)
        if ((unsigned char)scratch[bytes + j] != GUARD_BYTE)
            fail_msg("written past the end of scratch");
}

attn_status data_run(struct data *data, const struct plugin *plugin, char *text, size_t capacity)
{
    attn_error err = {sizeof err, (uint32_t)capacity, text, 0};
    attn_op_plan *plan = NULL;
    uint64_t bytes = 0;
    attn_op_call planned = data->call;
    attn_tensor *tensors[] = {&planned.q,   &planned.k,        &planned.v,
                              &planned.out, &planned.bias,     &planned.mask,
                              &planned.lse, &planned.key_mass, &planned.probs};
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
        tensors[i]->data = NULL;
    attn_status asked = plugin->api->supports(plugin->op, &planned, &err);
    attn_status status = plugin->api->prepare(plugin->op, &planned, &plan, &bytes, &err);
    assert_int_equal(asked, status);
    if (status != ATTN_OK)
        return status;
    attn_op_call call = data->call;
    poison(&call.out);
    poison(&call.lse);
    poison(&call.key_mass);
    poison(&call.probs);
    char *scratch = aligned_alloc(256, (bytes + GUARD + 255) / 256 * 256);
    if (!scratch)
        abort();
    memset(scratch, 0xff, bytes);
    memset(scratch + bytes, GUARD_BYTE, GUARD);
    call.scratch = scratch;
    call.scratch_bytes = bytes;
    status = plugin->api->run(plan, &call, &err);
    plugin->api->release(plan);
    check_guards(data, scratch, bytes);
    free(scratch);
    return status;
}
