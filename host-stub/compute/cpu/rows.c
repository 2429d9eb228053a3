/* rows.c: tensors as rows of fp32, which is what the kernels work on. */
#include "cpu.h"

struct rows rows_of(const attn_tensor *t)
{
    attn_tensor r = tensor_rank4(t);
    int64_t bytes = r.bits / 8;
    struct rows rows = {.data = r.data, .count = 1, .length = r.shape[3]};
    for (int i = 0; i < 3; ++i) {
        rows.shape[i] = r.shape[i];
        rows.stride[i] = r.stride[i] * bytes;
        rows.count *= r.shape[i];
    }
    /* Most tensors need no division to find a row. */
    rows.even = true;
    int64_t inner = rows.shape[2] * rows.stride[2];
    for (int i = 1; i >= 0; --i) {
        rows.even = rows.even && (rows.shape[i] == 1 || rows.stride[i] == inner);
        inner *= rows.shape[i];
    }
    return rows;
}

static bool rows_ready(const attn_tensor *t)
{
    return tensor_f32(t) && tensor_last_contiguous(t);
}

attn_tensor rows_input(attn_work *w, const attn_tensor *t)
{
    if (rows_ready(t))
        return *t;
    attn_tensor copy = work_take(w, NULL, t->rank, t->shape);
    cpu_copy(w, t, &copy);
    return copy;
}

attn_tensor rows_output(attn_work *w, const attn_tensor *t)
{
    return rows_ready(t) ? *t : work_take(w, NULL, t->rank, t->shape);
}

attn_status rows_finish(attn_work *w, const attn_tensor *written, const attn_tensor *t)
{
    return rows_ready(t) ? w->status : cpu_copy(w, written, t);
}

void rows_load(const struct kernels *k, const attn_tensor *type, const void *src, int64_t stride,
               int64_t n, float *dst)
{
    if (type->bits == 32) {
        const float *s = src;
        if (stride == 1) {
            memcpy(dst, s, (size_t)n * sizeof *dst);
            return;
        }
        for (int64_t i = 0; i < n; ++i)
            dst[i] = s[i * stride];
        return;
    }
    void (*convert)(int64_t, const uint16_t *, float *) =
        type->code == ATTN_CODE_BFLOAT ? k->bf16_to_f32 : k->f16_to_f32;
    const uint16_t *s = src;
    if (stride == 1) {
        convert(n, s, dst);
        return;
    }
    uint16_t part[64];
    for (int64_t i = 0; i < n; i += 64) {
        int64_t here = n - i < 64 ? n - i : 64;
        for (int64_t j = 0; j < here; ++j)
            part[j] = s[(i + j) * stride];
        convert(here, part, dst + i);
    }
}
