/* stored.c: reads and writes an attention's tensors. */
#include "stored.h"

#include "../../plugins/common/half.h"
#include "error.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[STORED_N] = {"q",    "k",   "v",   "bias",
                                            "mask", "out", "lse", "key_mass"};

/* -- element types ----------------------------------------------------------------------------- */

static bool is_float(safetensors_dtype t)
{
    return (t.code == ATTN_CODE_FLOAT && (t.bits == 16 || t.bits == 32 || t.bits == 64)) ||
           (t.code == ATTN_CODE_BFLOAT && t.bits == 16);
}

static double load(const char *from, safetensors_dtype t)
{
    uint16_t half;
    float f;
    double d;
    switch (t.bits) {
    case 16:
        memcpy(&half, from, 2);
        return (double)(t.code == ATTN_CODE_BFLOAT ? bf16_to_float(half) : fp16_to_float(half));
    case 32:
        memcpy(&f, from, 4);
        return (double)f;
    default:
        memcpy(&d, from, 8);
        return d;
    }
}

static void store(char *to, safetensors_dtype t, double value)
{
    uint16_t half;
    float f = (float)value;
    switch (t.bits) {
    case 16:
        half = t.code == ATTN_CODE_BFLOAT ? bf16_from_float(f) : fp16_from_float(f);
        memcpy(to, &half, 2);
        break;
    case 32:
        memcpy(to, &f, 4);
        break;
    default:
        memcpy(to, &value, 8);
        break;
    }
}

static void convert(const void *from, safetensors_dtype from_type, void *to,
                    safetensors_dtype to_type, uint64_t n)
{
    if (from_type.code == to_type.code && from_type.bits == to_type.bits) {
        memcpy(to, from, n * to_type.bits / 8);
        return;
    }
    for (uint64_t i = 0; i < n; i++) {
        store((char *)to + i * to_type.bits / 8, to_type,
              load((const char *)from + i * from_type.bits / 8, from_type));
    }
}

/* -- tensors ----------------------------------------------------------------------------------- */

static attn_status allocate(stored_tensor *t, const char *name, safetensors_dtype type,
                            uint32_t rank, const int64_t *shape, attn_error *err)
{
    uint64_t n = 1;
    t->name = name;
    t->view = (attn_tensor){.device_type = ATTN_DEVICE_CPU,
                            .code = type.code,
                            .bits = type.bits,
                            .lanes = 1,
                            .rank = rank,
                            .align = 256};
    for (uint32_t i = rank; i-- > 0;) {
        t->view.shape[i] = shape[i];
        t->view.stride[i] = (int64_t)n;
        if (__builtin_mul_overflow(n, (uint64_t)shape[i], &n) || n > UINT64_C(1) << 44) {
            return attn_fail(err, ATTN_NOMEM, "%s: too large", name);
        }
    }
    t->bytes = n * type.bits / 8;
    t->view.data = aligned_alloc(256, (t->bytes + 256) & ~UINT64_C(255));
    return t->view.data ? ATTN_OK
                        : attn_fail(err, ATTN_NOMEM, "%s: no memory for %llu bytes", name,
                                    (unsigned long long)t->bytes);
}

/* Strides of 0 where the file has 1 and the full shape more; axes count from the right. */
static attn_status broadcast(stored_tensor *t, const int64_t full[4], attn_error *err)
{
    attn_tensor small = t->view;
    t->view.rank = 4;
    for (uint32_t i = 0; i < 4; i++) {
        bool has = i + small.rank >= 4;
        int64_t shape = has ? small.shape[i + small.rank - 4] : 1;
        if (shape != full[i] && shape != 1) {
            return attn_fail(err, ATTN_INVALID, "%s: an axis is %lld, expected 1 or %lld", t->name,
                             (long long)shape, (long long)full[i]);
        }
        t->view.shape[i] = full[i];
        t->view.stride[i] = shape == 1 ? 0 : small.stride[i + small.rank - 4];
    }
    return ATTN_OK;
}

static attn_status read_tensor(const safetensors *file, int which, safetensors_dtype type,
                               stored_call *call, attn_error *err)
{
    const safetensors_tensor *s = safetensors_find(file, names[which]);
    bool optional = which == STORED_BIAS || which == STORED_MASK;
    if (!s) {
        return optional ? ATTN_OK
                        : attn_fail(err, ATTN_INVALID, "%s: no tensor \"%s\"",
                                    safetensors_path(file), names[which]);
    }
    bool right = which == STORED_MASK
                     ? s->dtype.bits == 8 && (s->dtype.code == ATTN_CODE_UINT || s->dtype.code == 6)
                     : is_float(s->dtype);
    if (!right || s->rank > 4 || s->rank < 1 || (!optional && s->rank != 4)) {
        return attn_fail(err, ATTN_INVALID, "%s: tensor \"%s\" is %s of rank %u, expected %s",
                         safetensors_path(file), names[which], safetensors_dtype_name(s->dtype),
                         s->rank,
                         which == STORED_MASK ? "U8 of rank 1 to 4"
                         : optional           ? "floats of rank 1 to 4"
                                              : "floats of rank 4");
    }
    if (which == STORED_MASK) {
        type = (safetensors_dtype){ATTN_CODE_UINT, 8};
    }
    stored_tensor *t = &call->tensors[which];
    attn_status status = allocate(t, names[which], type, s->rank, s->shape, err);
    if (status == ATTN_OK) {
        convert(s->data, which == STORED_MASK ? type : s->dtype, t->view.data, type,
                t->bytes * 8 / type.bits);
    }
    return status;
}

/* -- metadata ---------------------------------------------------------------------------------- */

static attn_status read_scale(const safetensors *file, stored_call *call, attn_error *err)
{
    const char *text = safetensors_metadata(file, "scale");
    char *end = NULL;
    if (!text) {
        return ATTN_OK;
    }
    errno = 0;
    call->scale = strtof(text, &end);
    return end != text && !*end && isfinite(call->scale)
               ? ATTN_OK
               : attn_fail(err, ATTN_INVALID, "%s: scale is \"%s\", expected a number",
                           safetensors_path(file), text);
}

static attn_status read_band(const safetensors *file, int64_t nq, int64_t nk, stored_call *call,
                             attn_error *err)
{
    const char *causal = safetensors_metadata(file, "causal");
    const char *window = safetensors_metadata(file, "window");
    long long left = -1, right = -1;
    char rest = 0;
    bool is_causal = causal && strcmp(causal, "0") != 0;
    bool bottom = is_causal && strcmp(causal, "bottom-right") == 0;
    if (is_causal && !bottom && strcmp(causal, "top-left") != 0) {
        return attn_fail(err, ATTN_INVALID,
                         "%s: causal is \"%s\", expected 0, top-left or bottom-right",
                         safetensors_path(file), causal);
    }
    if (window &&
        (sscanf(window, "%lld,%lld%c", &left, &right, &rest) != 2 || left < -1 || right < -1)) {
        return attn_fail(err, ATTN_INVALID, "%s: window is \"%s\", expected L,R of -1 or more",
                         safetensors_path(file), window);
    }
    int64_t at = bottom ? nk - nq : 0;
    call->band_lo = left < 0 ? INT64_MIN : at - left;
    call->band_hi = right < 0 ? INT64_MAX : at + right;
    if (is_causal && call->band_hi > at) {
        call->band_hi = at;
    }
    if (is_causal || left >= 0 || right >= 0) {
        call->flags |= ATTN_CALL_BAND;
    }
    return ATTN_OK;
}

/* -- the whole --------------------------------------------------------------------------------- */

static attn_status make_outputs(stored_call *call, safetensors_dtype type, attn_error *err)
{
    const attn_tensor *q = &call->tensors[STORED_Q].view, *k = &call->tensors[STORED_K].view;
    const attn_tensor *v = &call->tensors[STORED_V].view;
    const safetensors_dtype f32 = {ATTN_CODE_FLOAT, 32};
    const int64_t out[4] = {q->shape[0], q->shape[1], q->shape[2], v->shape[3]};
    const int64_t mass[2] = {q->shape[0], k->shape[2]};
    stored_tensor *t = call->tensors;
    attn_status status = allocate(&t[STORED_OUT], names[STORED_OUT], type, 4, out, err);
    if (status == ATTN_OK) {
        status = allocate(&t[STORED_LSE], names[STORED_LSE], f32, 3, out, err);
    }
    if (status == ATTN_OK) {
        status = allocate(&t[STORED_KEY_MASS], names[STORED_KEY_MASS], f32, 2, mass, err);
    }
    return status;
}

static attn_status read_all(const safetensors *file, safetensors_dtype type, stored_call *call,
                            attn_error *err)
{
    attn_status status = ATTN_OK;
    for (int i = STORED_Q; i <= STORED_MASK && status == ATTN_OK; i++) {
        status = read_tensor(file, i, type, call, err);
    }
    if (status != ATTN_OK) {
        return status;
    }
    const attn_tensor *q = &call->tensors[STORED_Q].view, *k = &call->tensors[STORED_K].view;
    const int64_t full[4] = {q->shape[0], q->shape[1], q->shape[2], k->shape[2]};
    for (int i = STORED_BIAS; i <= STORED_MASK && status == ATTN_OK; i++) {
        status = call->tensors[i].view.rank ? broadcast(&call->tensors[i], full, err) : ATTN_OK;
    }
    if (status == ATTN_OK) {
        status = read_scale(file, call, err);
    }
    if (status == ATTN_OK) {
        status = read_band(file, q->shape[2], k->shape[2], call, err);
    }
    return status == ATTN_OK ? make_outputs(call, type, err) : status;
}

attn_status stored_read(const char *path, uint8_t code, uint8_t bits, stored_call *call,
                        attn_error *err)
{
    safetensors *file = NULL;
    *call = (stored_call){0};
    attn_status status = safetensors_open(path, &file, err);
    if (status != ATTN_OK) {
        return status;
    }
    safetensors_dtype type = {code, bits};
    const safetensors_tensor *q = safetensors_find(file, "q");
    if (!bits && q) {
        type = q->dtype;
    }
    status = read_all(file, type, call, err);
    safetensors_close(file);
    if (status != ATTN_OK) {
        stored_free(call);
    }
    return status;
}

attn_status stored_write(const char *path, const stored_call *call, const char *op, attn_error *err)
{
    safetensors_tensor out[STORED_N];
    const safetensors_text text = {"op", op};
    size_t n = 0;
    for (int i = STORED_OUT; i <= STORED_KEY_MASS; i++) {
        const stored_tensor *t = &call->tensors[i];
        if (!t->view.rank) {
            continue;
        }
        out[n] = (safetensors_tensor){.name = t->name,
                                      .dtype = {t->view.code, t->view.bits},
                                      .rank = t->view.rank,
                                      .data = t->view.data,
                                      .bytes = t->bytes};
        memcpy(out[n].shape, t->view.shape, sizeof t->view.shape);
        n++;
    }
    return safetensors_write(path, out, n, &text, 1, err);
}

void stored_free(stored_call *call)
{
    for (int i = 0; i < STORED_N; i++) {
        free(call->tensors[i].view.data);
    }
    *call = (stored_call){0};
}

attn_op_call stored_op_call(const stored_call *call, const attn_device *device,
                            void *const data[STORED_N])
{
    attn_op_call c = {.size = sizeof c,
                      .flags = call->flags,
                      .band_lo = call->band_lo,
                      .band_hi = call->band_hi,
                      .scale = call->scale};
    attn_tensor *views[STORED_N] = {&c.q,    &c.k,   &c.v,   &c.bias,
                                    &c.mask, &c.out, &c.lse, &c.key_mass};
    for (int i = 0; i < STORED_N; i++) {
        *views[i] = call->tensors[i].view;
        views[i]->data = data[i];
        views[i]->device_type = device->type;
        views[i]->device_id = device->id;
    }
    return c;
}
