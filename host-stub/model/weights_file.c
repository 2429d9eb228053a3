/* weights_file.c: what the files of a model hold: which tensors, and whether they are as the model
 * wants them. */
#include "weights_private.h"

#include "attn_host.h"
#include "host_tensor.h"
#include "tensor_set.h"

#include <stdio.h>
#include <string.h>

int32_t weights_has(const struct weights *w, const char *format, ...)
{
    size_t index;
    FORMAT_NAME(name, format);
    return tensor_set_find(w->tensors, name, &index);
}

int32_t weights_shape(const struct weights *w, uint32_t rank, int64_t *shape, const char *format,
                      ...)
{
    const safetensors_tensor *t;
    size_t index;
    FORMAT_NAME(name, format);
    if (!tensor_set_find(w->tensors, name, &index)) {
        return 0;
    }
    t = tensor_set_at(w->tensors, index);
    if (t->rank != rank || t->bytes == 0) {
        return 0;
    }
    memcpy(shape, t->shape, rank * sizeof(*shape));
    return 1;
}

const char *shape_text(char text[SHAPE_BYTES], uint32_t rank, const int64_t *shape)
{
    size_t used = (size_t)snprintf(text, SHAPE_BYTES, "[");
    for (uint32_t i = 0; i < rank && used < SHAPE_BYTES; i++) {
        used += (size_t)snprintf(text + used, SHAPE_BYTES - used, "%s%lld", i ? ", " : "",
                                 (long long)shape[i]);
    }
    if (used < SHAPE_BYTES) {
        (void)snprintf(text + used, SHAPE_BYTES - used, "]");
    }
    return text;
}

static int dtype_is_usable(safetensors_dtype d)
{
    return (d.code == ATTN_CODE_FLOAT && (d.bits == 32 || d.bits == 16)) ||
           (d.code == ATTN_CODE_BFLOAT && d.bits == 16);
}

static int is_as_expected(struct weights *w, size_t index, uint32_t rank, const int64_t *shape)
{
    const safetensors_tensor *t = tensor_set_at(w->tensors, index);
    char found[SHAPE_BYTES];
    char expected[SHAPE_BYTES];
    const char *path = tensor_set_file(w->tensors, index);
    if (!dtype_is_usable(t->dtype)) {
        weights_fail(w, ATTN_INVALID, "%s: %s has elements of %s, expected F32, F16 or BF16", path,
                     t->name, safetensors_dtype_name(t->dtype));
        return 0;
    }
    if (t->rank != rank || memcmp(t->shape, shape, rank * sizeof(*shape)) != 0) {
        weights_fail(w, ATTN_INVALID, "%s: %s is %s, the model's configuration makes it %s", path,
                     t->name, shape_text(found, t->rank, t->shape),
                     shape_text(expected, rank, shape));
        return 0;
    }
    return 1;
}

attn_tensor weights_view(struct weights *w, const safetensors_tensor *t, uint32_t rank,
                         const int64_t *shape)
{
    const attn_tensor absent = {0};
    const uint32_t align = t->dtype.bits / 8u;
    const void *data = t->data;
    attn_tensor view;
    if ((uintptr_t)data % align != 0) { /* a file promises none; tensors do */
        void *copy = weights_alloc(w, t->bytes, 1);
        data = copy ? memcpy(copy, t->data, t->bytes) : NULL;
    }
    view = host_tensor(data, t->dtype.code, t->dtype.bits, rank, shape);
    view.align = align;
    return data ? view : absent;
}

attn_tensor weights_file_tensor(struct weights *w, const char *name, uint32_t rank,
                                const int64_t *shape)
{
    const attn_tensor absent = {0};
    const safetensors_tensor *t;
    size_t index;
    if (w->status != ATTN_OK) {
        return absent;
    }
    if (!tensor_set_find(w->tensors, name, &index)) {
        weights_fail(w, ATTN_NOT_FOUND, "%s: no tensor %s", tensor_set_path(w->tensors), name);
        return absent;
    }
    w->asked[index] = 1;
    t = tensor_set_at(w->tensors, index);
    if (!is_as_expected(w, index, rank, shape)) {
        return absent;
    }
    return weights_view(w, t, rank, shape);
}
