/* staging_copy.c: strided copies between host tensors, with conversion. */
#include "../../plugins/common/half.h"
#include "staging.h"

#include <string.h>

typedef struct {
    int64_t shape[4], from[4], to[4]; /* strides in bytes; leading axes of 1 */
} axes;

static axes axes_of(const attn_tensor *from, const attn_tensor *to)
{
    axes a = {{1, 1, 1, 1}, {0}, {0}};
    for (uint32_t i = 0; i < from->rank; i++) {
        uint32_t at = 4 - from->rank + i;
        a.shape[at] = from->shape[i];
        a.from[at] = from->stride[i] * (from->bits / 8);
        a.to[at] = to->stride[i] * (to->bits / 8);
    }
    return a;
}

static float get(const char *at, const attn_tensor *type)
{
    float f;
    uint16_t h;
    if (type->bits == 32) {
        memcpy(&f, at, sizeof f);
        return f;
    }
    memcpy(&h, at, sizeof h);
    return type->code == ATTN_CODE_BFLOAT ? bf16_to_float(h) : fp16_to_float(h);
}

static void set(char *at, const attn_tensor *type, float value)
{
    if (type->bits == 32) {
        memcpy(at, &value, sizeof value);
        return;
    }
    uint16_t h = type->code == ATTN_CODE_BFLOAT ? bf16_from_float(value) : fp16_from_float(value);
    memcpy(at, &h, sizeof h);
}

static void copy_row(const char *from, const attn_tensor *from_type, int64_t from_step, char *to,
                     const attn_tensor *to_type, int64_t to_step, int64_t n)
{
    size_t size = from_type->bits / 8;
    if (from_type->code != to_type->code || from_type->bits != to_type->bits) {
        for (int64_t i = 0; i < n; i++) {
            set(to + i * to_step, to_type, get(from + i * from_step, from_type));
        }
    } else if (from_step == (int64_t)size && to_step == (int64_t)size) {
        memcpy(to, from, (size_t)n * size);
    } else {
        for (int64_t i = 0; i < n; i++) {
            memcpy(to + i * to_step, from + i * from_step, size);
        }
    }
}

void staging_copy(const attn_tensor *from, const attn_tensor *to)
{
    const axes a = axes_of(from, to);
    for (int64_t i = 0; i < a.shape[0]; i++) {
        for (int64_t j = 0; j < a.shape[1]; j++) {
            for (int64_t k = 0; k < a.shape[2]; k++) {
                copy_row((const char *)from->data + i * a.from[0] + j * a.from[1] + k * a.from[2],
                         from, a.from[3],
                         (char *)to->data + i * a.to[0] + j * a.to[1] + k * a.to[2], to, a.to[3],
                         a.shape[3]);
            }
        }
    }
}
