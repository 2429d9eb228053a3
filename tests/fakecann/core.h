/* core.h: the machine behind the stand-in: state, memory, streams, executors. */
#ifndef FAKECANN_CORE_H
#define FAKECANN_CORE_H

#include "cann_abi.h"
#include "fakecann.h"

#include <stddef.h>

enum { MAX_RANK = 8, MAX_OPERANDS = 10 };

/* Alive while `magic` is right; destroyed ones are kept as dead for the text of a violation. */
struct aclTensor {
    uint32_t magic;
    int32_t type;
    uint32_t rank;
    int64_t shape[MAX_RANK], stride[MAX_RANK];
    int64_t offset, storage; /* elements */
    uint64_t data;           /* a device address */
};
struct aclScalar {
    uint32_t magic;
    double value;
};
struct operand {
    struct aclTensor tensor; /* rank 0: none */
    int written;
    char *host; /* while it is computed: of element 0 */
};
struct aclOpExecutor {
    uint32_t magic;
    const char *name;
    struct operand operand[MAX_OPERANDS];
    int count;
    int64_t number[6]; /* the operator's own */
    double factor;
    uint64_t workspace;
    int32_t late; /* what phase two is to return */
    /* 0, or the code with which the device fails */
    int32_t (*compute)(struct aclOpExecutor *executor);
};
enum { TENSOR_ALIVE = 0x7e501u, SCALAR_ALIVE = 0x7e502u, EXECUTOR_ALIVE = 0x7e503u, DEAD = 0xdead };

/* state.c ------------------------------------------------------------------------------------- */

/* One lock for everything; recursive. */
FAKECANN_API void fake_lock(void);
FAKECANN_API void fake_unlock(void);
/* Counts a call; not 0 is the code of an injected failure. */
FAKECANN_API int32_t fake_enter(const char *function);
/* As fake_enter for functions that release: they do so even where they are told to fail. */
FAKECANN_API int32_t fake_enter_release(const char *function);
__attribute__((format(printf, 1, 2))) FAKECANN_API void fake_violation(const char *format, ...);
/* Sets this thread's text for aclGetRecentErrMsg and returns the code. */
__attribute__((format(printf, 2, 3))) FAKECANN_API int32_t fake_error(int32_t code,
                                                                      const char *format, ...);
FAKECANN_API const char *fake_take_message(void);
FAKECANN_API int fake_is_strict(void);
FAKECANN_API int fake_tells_late(void);
FAKECANN_API void fake_live_add(const char *what, int64_t n);

/* memory.c ------------------------------------------------------------------------------------ */

FAKECANN_API int32_t fake_malloc(uint64_t bytes, uint64_t *address);
FAKECANN_API int32_t fake_free(uint64_t address);
/* The host's copy of [address, address + bytes), NULL where that is not within one allocation. */
FAKECANN_API char *fake_resolve(uint64_t address, uint64_t bytes);
/* Whether an address is of the device's space at all. */
FAKECANN_API int fake_is_device(uint64_t address);

/* context.c ----------------------------------------------------------------------------------- */

FAKECANN_API int fake_is_initialized(void);
FAKECANN_API int32_t fake_init(void);
FAKECANN_API int32_t fake_finalize(uint64_t *left, int all);
FAKECANN_API int32_t fake_device_set(int32_t device);
FAKECANN_API int32_t fake_device_reset(int32_t device);
FAKECANN_API uint32_t fake_device_count(void);
/* NULL: none. */
FAKECANN_API void *fake_context(void);
FAKECANN_API int32_t fake_context_set(void *context);

/* stream.c ------------------------------------------------------------------------------------ */

FAKECANN_API int32_t fake_stream_create(void **stream);
FAKECANN_API int32_t fake_stream_destroy(void *stream);
/* Computes what is queued; the first failure of the device comes back, and is forgotten. */
FAKECANN_API int32_t fake_stream_synchronize(void *stream);
/* Queues; the executor is the stream's from here on. */
FAKECANN_API int32_t fake_stream_push(void *stream, struct aclOpExecutor *executor,
                                      uint64_t workspace);
/* Whether queued work reads or writes any of these bytes. */
FAKECANN_API int fake_is_pending(uint64_t address, uint64_t bytes, int only_written);

/* executor.c ---------------------------------------------------------------------------------- */

FAKECANN_API size_t fake_type_bytes(int32_t type);
/* First byte and number of bytes that a tensor's elements span. */
FAKECANN_API void fake_tensor_span(const struct aclTensor *t, uint64_t *address, uint64_t *bytes);
FAKECANN_API struct aclOpExecutor *fake_executor_new(const char *name);
FAKECANN_API void fake_executor_add(struct aclOpExecutor *e, const struct aclTensor *t,
                                    int written);
FAKECANN_API void fake_executor_free(struct aclOpExecutor *e);
/* Phase two of any operator. */
FAKECANN_API int32_t fake_launch(const char *name, void *workspace, uint64_t bytes,
                                 struct aclOpExecutor *executor, void *stream);

#endif
