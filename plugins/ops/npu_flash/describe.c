/* describe.c: contract tensors as CANN's descriptors. */
#include "npu_flash.h"

/* A kernel wants addresses in steps of 32 bytes: a view that begins elsewhere is described from the
 * step before it, with an offset, as PyTorch's backend does for its views. */
aclTensor *tensors_add(struct tensors *s, const struct attn_op *op, const attn_tensor *t,
                       const int axes[4], int32_t type)
{
    int64_t shape[4], stride[4], extent = 1;
    uintptr_t address = (uintptr_t)(t->data ? t->data : op->anchor);
    uintptr_t begin = address & ~(uintptr_t)(ADDRESS_ALIGNMENT - 1);
    for (uint32_t i = 0; i < t->rank; i++) {
        int from = axes ? axes[i] : (int)i;
        shape[i] = t->shape[from];
        stride[i] = t->stride[from];
        extent += (shape[i] - 1) * stride[i];
    }
    int64_t offset = (int64_t)(address - begin) / (t->bits / 8);
    extent += offset;
    aclTensor *made =
        s->cann->aclCreateTensor(shape, t->rank, type, stride, offset, ACL_FORMAT_ND, &extent, 1,
                                 (void *)begin); /* NOLINT: an address at the device */
    if (made)
        s->tensor[s->count++] = made;
    else
        s->failed = 1;
    return made;
}

aclScalar *tensors_scalar(struct tensors *s, float value)
{
    s->scalar = s->cann->aclCreateScalar(&value, ACL_FLOAT);
    s->failed |= !s->scalar;
    return s->scalar;
}

void tensors_destroy(struct tensors *s)
{
    while (s->count > 0)
        (void)s->cann->aclDestroyTensor(s->tensor[--s->count]);
    if (s->scalar)
        (void)s->cann->aclDestroyScalar(s->scalar);
    s->scalar = NULL;
}

attn_tensor region_tensor(const struct walk *w, uint64_t offset, const int64_t shape[4],
                          uint8_t code, uint8_t bits)
{
    attn_tensor t = {.device_type = ATTN_DEVICE_EXT,
                     .device_id = w->plan->op->device,
                     .code = code,
                     .bits = bits,
                     .lanes = 1,
                     .rank = 4};
    int64_t step = 1;
    for (int i = 3; i >= 0; i--) {
        t.shape[i] = shape[i];
        t.stride[i] = step;
        step *= shape[i];
    }
    if (!w->dry)
        t.data = (char *)w->call->scratch + offset;
    return t;
}
