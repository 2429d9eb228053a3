/* attn_layer.h: libattnsag's way to run one attention layer through a processor plugin.
 *
 * For engines that have tensors and weights of their own and want what diffusers calls an attention
 * processor, with LoRA, added projections and the rest.  Conventions as in attn_host.h.
 */
#ifndef ATTN_LAYER_H
#define ATTN_LAYER_H

#include "attn_router.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct attn_computer attn_computer; /* a device with its tensor operations */

/* device: type CPU (fp32 arithmetic).  n_threads 0: one per core allowed. [any] */
ATTN_API attn_status attn_computer_open(attn_registry *registry, const attn_device *device,
                                        uint32_t n_threads, attn_computer **computer,
                                        attn_error *err);
/* The same for a device of type CPU or CUDA, in fp32, fp16 or bf16 (dtype: an ATTN_DTYPE_...; a CPU
 * computes them all in fp32).  On a GPU all work goes to one stream.  Layers may have weights, and
 * calls tensors, in its memory, or all of them in host memory: then weights are copied there at
 * bind, tensors at each run, which waits for its result. [any] */
ATTN_API attn_status attn_computer_open_as(attn_registry *registry, const attn_device *device,
                                           uint64_t dtype, uint32_t n_threads,
                                           attn_computer **computer, attn_error *err);
/* [owner] Layers are closed. NULL does nothing. */
ATTN_API void attn_computer_close(attn_computer *computer);
ATTN_API attn_router *attn_computer_router(attn_computer *computer); /* [any] */

/* What CPU arithmetic is made of on this machine ("avx512 kernels, oneDNN 2.6.3, OpenMP"), cut to
 * capacity. [any] */
ATTN_API void attn_computer_about(char *text, uint32_t capacity);

/* Which processor runs a layer, and with what. */
typedef struct {
    uint32_t size;
    uint32_t flags; /* ATTN_NAME_SDPA, ATTN_NAME_EXACT, ATTN_NAME_F32_AUTO */
    const char *
        processor; /* short name, id or a name of attn_name; "lora+B" gives B's linears the terms */
    const char *op; /* a name or an id; NULL: as the processor's name says; overridden by a
                       parameter "attention_op" */
    const attn_param
        *params; /* the processor's own: scalars, texts and tensors, under diffusers' names */
    uint32_t n_params;
    uint32_t reserved;
} attn_layer_spec;

typedef struct attn_bound attn_bound; /* a layer bound to a processor */

/* layer, its weights and params stay unchanged until unbind. [any] */
ATTN_API attn_status attn_layer_bind(attn_computer *computer, const attn_layer *layer,
                                     const attn_layer_spec *spec, attn_bound **bound,
                                     attn_error *err);
ATTN_API void attn_layer_unbind(attn_bound *bound);                 /* [owner] NULL does nothing */
ATTN_API const char *attn_layer_processor(const attn_bound *bound); /* id of the processor [any] */
ATTN_API const char *
attn_layer_op(const attn_bound *bound); /* id of the op of the last plan, or "" */

/* One run: plans for new shapes as needed, takes scratch of its own.  call->work is ignored.  One
 * call at a time for each bound layer. */
ATTN_API attn_status attn_layer_run(attn_bound *bound, const attn_layer_call *call,
                                    attn_error *err);

#ifdef __cplusplus
}
#endif

#endif /* ATTN_LAYER_H */
