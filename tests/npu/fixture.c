#include "fixture.h"

#include "half.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { Q, K, V, OUT, BIAS, MASK, LSE };

/* -- the plugin -------------------------------------------------------------------------------- */

const attn_op_api *npu_api(void)
{
    static const attn_op_api *api;
    const char *path = getenv("NPU_PLUGIN");
    if (api)
        return api;
    void *handle = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    api = handle ? dlsym(handle, "attn_op_v1") : NULL;
    if (!api)
        (void)fprintf(stderr, "NPU_PLUGIN=%s: %s\n", path ? path : "",
                      path ? dlerror() : "not set");
    return api;
}

void npu_begin(struct npu *npu)
{
    memset(npu, 0, sizeof *npu);
    npu->api = npu_api();
    if (!npu->api)
        abort();
    npu->memory = npu->api->query("attn.memory/1");
    npu->host = (attn_host){.size = sizeof npu->host, .max_threads = 1};
    npu->err = (attn_error){.size = sizeof npu->err, .capacity = sizeof npu->text};
    npu->err.text = npu->text;
}

attn_status npu_create(struct npu *npu)
{
    const attn_device device = {ATTN_DEVICE_EXT, 0, "cann"};
    npu->text[0] = '\0';
    npu->err.text = npu->text;
    return npu->api->create(&npu->host, &device, NULL, 0, &npu->op, &npu->err);
}

void npu_destroy(struct npu *npu)
{
    npu->api->destroy(npu->op);
    npu->op = NULL;
}

/* -- host tensors ------------------------------------------------------------------------------ */

static double uniform(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return ((double)*state + 1.0) / 4294967297.0;
}

/* Normal, with one in a hundred eight times as large. */
static double normal(uint32_t *state)
{
    double r = sqrt(-2.0 * log(uniform(state))), x = r * cos(6.283185307179586 * uniform(state));
    return uniform(state) < 0.01 ? 8.0 * x : x;
}

static attn_tensor tensor_of(uint32_t rank, const int64_t *shape, int code, int bits)
{
    attn_tensor t = {.rank = rank, .code = (uint8_t)code, .bits = (uint8_t)bits, .lanes = 1};
    int64_t step = 1;
    t.device_type = ATTN_DEVICE_EXT;
    for (uint32_t i = rank; i-- > 0;) {
        t.shape[i] = shape[i];
        t.stride[i] = step;
        step *= shape[i];
    }
    return t;
}

static uint64_t tensor_bytes(const attn_tensor *t)
{
    int64_t elements = 1;
    for (uint32_t i = 0; i < t->rank; i++)
        if (t->shape[i] == 0)
            return 0;
        else
            elements += (t->shape[i] - 1) * t->stride[i];
    return (uint64_t)elements * t->bits / 8;
}

static double value_at(const attn_tensor *t, int64_t b, int64_t h, int64_t i, int64_t j)
{
    int64_t at = b * t->stride[0] + h * t->stride[1] + i * t->stride[2] + j * t->stride[3];
    if (t->bits == 8)
        return ((const uint8_t *)t->data)[at];
    if (t->bits == 32)
        return (double)((const float *)t->data)[at];
    uint16_t x = ((const uint16_t *)t->data)[at];
    return (double)(t->code == ATTN_CODE_BFLOAT ? bf16_to_float(x) : fp16_to_float(x));
}

/* Fills every element that the tensor spans, so that shared ones are written once. */
static void tensor_fill(attn_tensor *t, uint32_t *seed)
{
    uint64_t n = tensor_bytes(t) / (t->bits / 8);
    for (uint64_t i = 0; i < n; i++) {
        double x = t->bits == 8 ? (double)(uniform(seed) < 0.7) * 5.0 : normal(seed);
        if (t->bits == 8)
            ((uint8_t *)t->data)[i] = (uint8_t)x;
        else
            ((uint16_t *)t->data)[i] =
                t->code == ATTN_CODE_BFLOAT ? bf16_from_float((float)x) : fp16_from_float((float)x);
    }
}

static void share(attn_tensor *t, enum shared how)
{
    if (how == BY_BATCH || how == BY_BOTH)
        t->stride[0] = 0;
    if (how == BY_HEADS || how == BY_BOTH)
        t->stride[1] = 0;
    if (how == BY_ROWS)
        t->stride[2] = 0;
}

static void lay_out(attn_tensor *t, enum layout layout, int64_t heads)
{
    int64_t d = t->shape[3], tokens = t->shape[2];
    int64_t step = layout == PACKED ? 3 * heads * d : heads * d;
    if (layout == HEADS_FIRST)
        return;
    t->stride[0] = tokens * step;
    t->stride[1] = d;
    t->stride[2] = step;
}

static attn_tensor *tensor_by_index(attn_op_call *c, int i)
{
    attn_tensor *const all[BUFFERS] = {&c->q, &c->k, &c->v, &c->out, &c->bias, &c->mask, &c->lse};
    return all[i];
}

static void tensors_make(struct attention *a)
{
    const struct problem *p = &a->p;
    int code = p->bfloat ? ATTN_CODE_BFLOAT : ATTN_CODE_FLOAT;
    const int64_t q[4] = {p->batch, p->heads, p->nq, p->d};
    const int64_t k[4] = {p->batch, p->kv_heads, p->nk, p->d};
    const int64_t v[4] = {p->batch, p->kv_heads, p->nk, p->dv};
    const int64_t o[4] = {p->batch, p->heads, p->nq, p->dv};
    const int64_t pairs[4] = {p->batch, p->heads, p->nq, p->nk};
    attn_op_call *c = &a->call;
    c->q = tensor_of(4, q, code, 16);
    c->k = tensor_of(4, k, code, 16);
    c->v = tensor_of(4, v, code, 16);
    c->out = tensor_of(4, o, code, 16);
    lay_out(&c->q, p->layout, p->heads);
    lay_out(&c->k, p->layout, p->kv_heads);
    lay_out(&c->v, p->layout, p->kv_heads);
    lay_out(&c->out, p->layout == PACKED ? TOKENS_FIRST : p->layout, p->heads);
    if (p->bias)
        c->bias = tensor_of(4, pairs, code, 16);
    if (p->mask)
        c->mask = tensor_of(4, pairs, ATTN_CODE_UINT, 8);
    if (p->lse)
        c->lse = tensor_of(3, pairs, ATTN_CODE_FLOAT, 32);
    if (p->lse_strided) {
        c->lse.stride[0] = p->heads;
        c->lse.stride[1] = 1;
        c->lse.stride[2] = p->heads * p->batch;
    }
    share(&c->bias, p->bias);
    share(&c->mask, p->mask);
}

/* -- what is expected -------------------------------------------------------------------------- */

static int sees(const struct attention *a, int64_t b, int64_t h, int64_t i, int64_t j)
{
    const struct problem *p = &a->p;
    if (p->band && (j - i < p->lo || j - i > p->hi))
        return 0;
    return !p->mask || value_at(&a->host.mask, b, h, i, j) != 0.0;
}

static double score(const struct attention *a, int64_t b, int64_t h, int64_t i, int64_t j)
{
    const attn_op_call *c = &a->host;
    double x = 0.0, scale = a->p.scale != 0.0f ? (double)a->p.scale : 1.0 / sqrt((double)a->p.d);
    int64_t kh = h / (a->p.heads / a->p.kv_heads);
    for (int64_t d = 0; d < a->p.d; d++)
        x += value_at(&c->q, b, h, i, d) * value_at(&c->k, b, kh, j, d);
    return scale * x + (a->p.bias ? value_at(&c->bias, b, h, i, j) : 0.0);
}

static void expect_row(struct attention *a, int64_t b, int64_t h, int64_t i, double *w)
{
    const struct problem *p = &a->p;
    int64_t row = (b * p->heads + h) * p->nq + i, kh = h / (p->heads / p->kv_heads);
    double max = -INFINITY, sum = 0.0;
    for (int64_t j = 0; j < p->nk; j++) {
        w[j] = sees(a, b, h, i, j) ? score(a, b, h, i, j) : -INFINITY;
        max = w[j] > max ? w[j] : max;
    }
    for (int64_t j = 0; j < p->nk; j++)
        sum += w[j] = max == -INFINITY ? 0.0 : exp(w[j] - max);
    a->lse[row] = max == -INFINITY ? -INFINITY : max + log(sum);
    for (int64_t d = 0; d < p->dv; d++) {
        double x = 0.0;
        for (int64_t j = 0; j < p->nk && sum > 0.0; j++)
            x += w[j] / sum * value_at(&a->host.v, b, kh, j, d);
        a->out[row * p->dv + d] = x;
    }
}

static void expect(struct attention *a)
{
    const struct problem *p = &a->p;
    size_t rows = (size_t)(p->batch * p->heads * p->nq);
    double *w = malloc(((size_t)p->nk + 1) * sizeof *w);
    a->out = malloc((rows * (size_t)p->dv + 1) * sizeof *a->out);
    a->lse = malloc((rows + 1) * sizeof *a->lse);
    if (!w || !a->out || !a->lse)
        abort();
    for (int64_t b = 0; b < p->batch; b++)
        for (int64_t h = 0; h < p->heads; h++)
            for (int64_t i = 0; i < p->nq; i++)
                expect_row(a, b, h, i, w);
    free(w);
}

static void hide_rows(struct attention *a)
{
    attn_tensor *m = &a->host.mask;
    for (int64_t b = 0; b < m->shape[0]; b++)
        for (int64_t h = 0; h < m->shape[1]; h++)
            for (int64_t i = 0; i < m->shape[2]; i += 3)
                for (int64_t j = 0; j < m->shape[3]; j++)
                    ((uint8_t *)m->data)[b * m->stride[0] + h * m->stride[1] + i * m->stride[2] +
                                         j * m->stride[3]] = 0;
}

void attention_make(struct attention *a, const struct problem *p)
{
    uint32_t seed = p->seed ? p->seed : 0x9e3779b9u;
    memset(a, 0, sizeof *a);
    a->p = *p;
    a->p.kv_heads = p->kv_heads ? p->kv_heads : p->heads;
    a->p.dv = p->dv ? p->dv : p->d;
    a->call = (attn_op_call){.size = sizeof a->call, .scale = p->scale};
    if (p->band) {
        a->call.flags = ATTN_CALL_BAND;
        a->call.band_lo = p->lo;
        a->call.band_hi = p->hi;
    }
    tensors_make(a);
    a->host = a->call;
    for (int i = 0; i < BUFFERS; i++) {
        attn_tensor *t = tensor_by_index(&a->host, i);
        if (!t->rank)
            continue;
        uint64_t shift = (uint64_t)p->shift * t->bits / 8;
        a->buffer[i].bytes = tensor_bytes(t) + shift;
        a->buffer[i].host = calloc(1, a->buffer[i].bytes + 64);
        if (!a->buffer[i].host)
            abort();
        t->data = (char *)a->buffer[i].host + shift;
        if (i != OUT && i != LSE)
            tensor_fill(t, &seed);
    }
    if (p->hide_rows)
        hide_rows(a);
    expect(a);
}

void attention_free(struct attention *a)
{
    for (int i = 0; i < BUFFERS; i++)
        free(a->buffer[i].host);
    free(a->out);
    free(a->lse);
}

/* -- steps ------------------------------------------------------------------------------------- */

attn_status attention_prepare(struct npu *npu, struct attention *a)
{
    attn_status status = npu->api->supports(npu->op, &a->call, &npu->err);
    if (status == ATTN_OK)
        status = npu->api->prepare(npu->op, &a->call, &a->plan, &a->scratch_bytes, &npu->err);
    return status;
}

attn_status attention_in(struct npu *npu, struct attention *a, void *stream)
{
    attn_status status = ATTN_OK;
    for (int i = 0; i < BUFFERS && status == ATTN_OK; i++) {
        struct buffer *b = &a->buffer[i];
        if (!b->host || b->device)
            continue;
        status = npu->memory->alloc(npu->op, b->bytes + 64, &b->device, &npu->err);
        if (status == ATTN_OK && i != OUT && i != LSE)
            status = npu->memory->copy_in(npu->op, b->device, b->host, b->bytes, stream, &npu->err);
        tensor_by_index(&a->call, i)->data =
            (char *)b->device + a->p.shift * tensor_by_index(&a->call, i)->bits / 8;
    }
    if (status == ATTN_OK && a->scratch_bytes && !a->scratch)
        status = npu->memory->alloc(npu->op, a->scratch_bytes, &a->scratch, &npu->err);
    a->call.scratch = a->scratch;
    a->call.scratch_bytes = a->scratch_bytes;
    return status;
}

attn_status attention_run(struct npu *npu, struct attention *a, void *stream)
{
    a->call.stream = stream;
    return npu->api->run(a->plan, &a->call, &npu->err);
}

attn_status attention_out(struct npu *npu, struct attention *a, void *stream)
{
    attn_status status = ATTN_OK;
    for (int i = OUT; i <= LSE && status == ATTN_OK; i += LSE - OUT)
        if (a->buffer[i].host) {
            memset(a->buffer[i].host, 0xff, a->buffer[i].bytes);
            status = npu->memory->copy_out(npu->op, a->buffer[i].host, a->buffer[i].device,
                                           a->buffer[i].bytes, stream, &npu->err);
        }
    attn_status waited = npu->memory->synchronize(npu->op, stream, &npu->err);
    return status == ATTN_OK ? waited : status;
}

void attention_undo(struct npu *npu, struct attention *a)
{
    (void)npu->memory->synchronize(npu->op, a->call.stream, NULL);
    for (int i = 0; i < BUFFERS; i++) {
        npu->memory->free(npu->op, a->buffer[i].device);
        a->buffer[i].device = NULL;
    }
    npu->memory->free(npu->op, a->scratch);
    npu->api->release(a->plan);
    a->scratch = NULL;
    a->plan = NULL;
    a->scratch_bytes = 0;
}

attn_status attention_steps(struct npu *npu, struct attention *a, void *stream)
{
    a->call.stream = stream;
    attn_status status = attention_prepare(npu, a);
    if (status == ATTN_OK)
        status = attention_in(npu, a, stream);
    if (status == ATTN_OK)
        status = attention_run(npu, a, stream);
    if (status == ATTN_OK)
        status = attention_out(npu, a, stream);
    return status;
}

attn_status attention_do(struct npu *npu, struct attention *a, void *stream)
{
    attn_status status = attention_steps(npu, a, stream);
    attention_undo(npu, a);
    return status;
}

/* -- judgement --------------------------------------------------------------------------------- */

double attention_error(const struct attention *a)
{
    const struct problem *p = &a->p;
    double sum[2] = {0.0, 0.0}, size[2] = {0.0, 0.0};
    for (int64_t b = 0; b < p->batch; b++)
        for (int64_t h = 0; h < p->heads; h++)
            for (int64_t i = 0; i < p->nq; i++) {
                int64_t row = (b * p->heads + h) * p->nq + i;
                for (int64_t d = 0; d < p->dv; d++) {
                    double want = a->out[row * p->dv + d];
                    sum[0] += pow(value_at(&a->host.out, b, h, i, d) - want, 2.0);
                    size[0] += want * want;
                }
                if (!p->lse)
                    continue;
                double want = a->lse[row], got = value_at(&a->host.lse, b, h, i, 0);
                if (isinf(want) != isinf(got))
                    return INFINITY;
                sum[1] += isinf(want) ? (want == got ? 0.0 : INFINITY) : pow(got - want, 2.0);
                size[1] += isinf(want) ? 0.0 : want * want;
            }
    double out = sqrt(sum[0] / (size[0] > 0.0 ? size[0] : 1.0));
    double lse = sqrt(sum[1] / (size[1] > 0.0 ? size[1] : 1.0));
    return !(out <= lse) ? out : lse;
}

double attention_bound(const struct attention *a)
{
    return a->p.bfloat ? 8e-3 : 1e-3;
}
