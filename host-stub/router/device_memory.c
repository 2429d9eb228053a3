/* device_memory.c: calls of an op's "attn.memory/1", and what they returned. */
#include "device_memory.h"

#include "error.h"

#include <stddef.h>

device_memory device_memory_of(attn_host_op *op)
{
    const attn_memory *table = attn_host_op_query(op, "attn.memory/1");
    return (device_memory){.table = table && table->size >= sizeof *table ? table : NULL,
                           .instance = attn_host_op_instance(op),
                           .id = attn_host_op_head(op)->id};
}

static attn_status result(const device_memory *m, const char *function, attn_status status,
                          attn_error *err)
{
    return status >= ATTN_OK && status <= ATTN_INTERNAL
               ? status
               : attn_fail(err, ATTN_INTERNAL,
                           "%s: %s of attn.memory/1 returned status %d, which attn_abi.h lacks",
                           m->id, function, status);
}

attn_status device_memory_alloc(const device_memory *m, uint64_t bytes, void **data,
                                attn_error *err)
{
    attn_status status = result(m, "alloc", m->table->alloc(m->instance, bytes, data, err), err);
    return status == ATTN_OK && !*data
               ? attn_fail(err, ATTN_INTERNAL, "%s: alloc of attn.memory/1 returned ok and NULL",
                           m->id)
               : status;
}

void device_memory_free(const device_memory *m, void *data)
{
    if (m->table) {
        m->table->free(m->instance, data);
    }
}

attn_status device_memory_copy_in(const device_memory *m, void *device, const void *host,
                                  uint64_t bytes, void *stream, attn_error *err)
{
    attn_status status = m->table->copy_in(m->instance, device, host, bytes, stream, err);
    return result(m, "copy_in", status, err);
}

attn_status device_memory_copy_out(const device_memory *m, void *host, const void *device,
                                   uint64_t bytes, void *stream, attn_error *err)
{
    attn_status status = m->table->copy_out(m->instance, host, device, bytes, stream, err);
    return result(m, "copy_out", status, err);
}

attn_status device_memory_synchronize(const device_memory *m, void *stream, attn_error *err)
{
    return result(m, "synchronize", m->table->synchronize(m->instance, stream, err), err);
}
