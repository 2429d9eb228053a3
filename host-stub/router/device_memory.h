/* device_memory.h: "attn.memory/1" of an op, for host tensors and scratch at its device. */
#ifndef ATTNPLUG_ROUTER_DEVICE_MEMORY_H
#define ATTNPLUG_ROUTER_DEVICE_MEMORY_H

#include "attn_host.h"

/* table NULL: none; the functions below are not called then, but for free. */
typedef struct {
    const attn_memory *table;
    attn_op *instance;
    const char *id; /* of the op, for texts */
} device_memory;

/* What the op gives, NULL where that is nothing or is too short. */
device_memory device_memory_of(attn_host_op *op);

/* As the functions of attn_memory, but what the contract does not allow becomes ATTN_INTERNAL. */
attn_status device_memory_alloc(const device_memory *m, uint64_t bytes, void **data,
                                attn_error *err);
void device_memory_free(const device_memory *m, void *data);
attn_status device_memory_copy_in(const device_memory *m, void *device, const void *host,
                                  uint64_t bytes, void *stream, attn_error *err);
attn_status device_memory_copy_out(const device_memory *m, void *host, const void *device,
                                   uint64_t bytes, void *stream, attn_error *err);
attn_status device_memory_synchronize(const device_memory *m, void *stream, attn_error *err);

#endif
