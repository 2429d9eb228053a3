/* Reads the goldens of ops: float64 results of the formula, stored by tools/golden/ops.py. */
#include "golden.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

struct file {
    json_t *header;
    char *bytes, *data;
};

static void file_open(struct file *file, const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("%s: cannot be opened", path);
    long size = -1;
    if (fseek(f, 0, SEEK_END) == 0)
        size = ftell(f);
    rewind(f);
    uint64_t header = 0;
    file->bytes = size > 8 ? malloc((size_t)size) : NULL;
    if (!file->bytes || fread(file->bytes, 1, (size_t)size, f) != (size_t)size)
        fail_msg("%s: cannot be read", path);
    (void)fclose(f);
    memcpy(&header, file->bytes, 8);
    assert_true(header <= (uint64_t)size - 8);
    file->header = json_loadb(file->bytes + 8, header, 0, NULL);
    assert_non_null(file->header);
    file->data = file->bytes + 8 + header;
}

static void file_close(struct file *file)
{
    json_decref(file->header);
    free(file->bytes);
}

/* A stored tensor as a view of the file's bytes; rank 0 if there is none. */
static attn_tensor stored(const struct file *file, const char *name)
{
    attn_tensor t = {.lanes = 1, .device_type = ATTN_DEVICE_CPU};
    const json_t *entry = json_object_get(file->header, name);
    if (!entry)
        return t;
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    const json_t *shape = json_object_get(entry, "shape");
    t.code = strcmp(dtype, "BF16") == 0 ? ATTN_CODE_BFLOAT
             : strcmp(dtype, "U8") == 0 ? ATTN_CODE_UINT
                                        : ATTN_CODE_FLOAT;
    t.bits = strcmp(dtype, "F32") == 0 ? 32 : strcmp(dtype, "U8") == 0 ? 8 : 16;
    t.rank = (uint32_t)json_array_size(shape);
    int64_t step = 1;
    for (uint32_t i = t.rank; i-- > 0;) {
        t.shape[i] = json_integer_value(json_array_get(shape, i));
        t.stride[i] = step;
        step *= t.shape[i];
    }
    t.data =
        file->data + json_integer_value(json_array_get(json_object_get(entry, "data_offsets"), 0));
    return t;
}

/* Copies into the tensor, which may be broadcast from axes of 1. */
static void copy(const attn_tensor *to, const attn_tensor *from)
{
    for (int64_t b = 0; b < to->shape[0]; b++)
        for (int64_t h = 0; h < to->shape[1]; h++)
            for (int64_t i = 0; i < to->shape[2]; i++)
                for (int64_t j = 0; j < to->shape[3]; j++) {
                    int64_t at[4] = {b, h, i, j};
                    int64_t source[4];
                    for (int axis = 0; axis < 4; axis++)
                        source[axis] = from->shape[axis] == 1 ? 0 : at[axis];
                    tensor_set(to, at, tensor_get(from, source));
                }
}

static const char *metadata(const struct file *file, const char *key)
{
    return json_string_value(json_object_get(json_object_get(file->header, "__metadata__"), key));
}

static void read_band(const struct file *file, struct config *c)
{
    const char *causal = metadata(file, "causal"), *window = metadata(file, "window");
    int64_t a = causal && strcmp(causal, "bottom-right") == 0 ? c->nk - c->nq : 0;
    long left = -1, right = -1;
    if (window) {
        char *end;
        left = strtol(window, &end, 10);
        right = strtol(end + 1, NULL, 10);
    }
    c->band = causal || window;
    c->lo = left < 0 ? INT64_MIN : a - left;
    c->hi = right < 0 ? INT64_MAX : a + right;
    if (causal && strcmp(causal, "0") != 0 && c->hi > a)
        c->hi = a;
}

void golden_open(struct golden *golden, const char *path)
{
    struct file file;
    file_open(&file, path);
    attn_tensor q = stored(&file, "q"), k = stored(&file, "k"), v = stored(&file, "v");
    attn_tensor bias = stored(&file, "bias"), mask = stored(&file, "mask");
    const char *scale = metadata(&file, "scale");
    struct config c = {
        .batch = q.shape[0],
        .heads = q.shape[1],
        .kv_heads = k.shape[1],
        .nq = q.shape[2],
        .nk = k.shape[2],
        .d = q.shape[3],
        .dv = v.shape[3],
        .dtype = q.code == ATTN_CODE_BFLOAT ? BF16
                 : q.bits == 16             ? F16
                                            : F32,
        .bias = bias.rank ? FULL_BIAS : NO_BIAS,
        .mask = mask.rank ? FULL_MASK : NO_MASK,
        .scale = scale ? strtof(scale, NULL) : 0.0f,
        .lse = 1,
        .mass = 1,
    };
    read_band(&file, &c);
    data_make(&golden->data, &c, 1);
    copy(&golden->data.call.q, &q);
    copy(&golden->data.call.k, &k);
    copy(&golden->data.call.v, &v);
    if (bias.rank)
        copy(&golden->data.call.bias, &bias);
    if (mask.rank)
        copy(&golden->data.call.mask, &mask);
    golden->out = stored(&file, "out");
    golden->lse = stored(&file, "lse");
    golden->key_mass = stored(&file, "key_mass");
    golden->bytes = file.bytes;
    file.bytes = NULL;
    file_close(&file);
}

void golden_close(struct golden *golden)
{
    data_free(&golden->data);
    free(golden->bytes);
}
