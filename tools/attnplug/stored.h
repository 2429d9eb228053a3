/* stored.h: one attention as it is kept in a .safetensors file.
 *
 * q, k, v [B,H,N,D]; optional bias and mask (uint8), broadcast to [B,H,Nq,Nk]; metadata scale,
 * causal (0, top-left, bottom-right), window (L,R, -1 is no bound) -> out, lse [B,H,Nq],
 * key_mass [B,Nk]. */
#ifndef ATTNPLUG_STORED_H
#define ATTNPLUG_STORED_H

#include "attn_host.h"

#include "safetensors.h"

#include <stdbool.h>

enum {
    STORED_Q,
    STORED_K,
    STORED_V,
    STORED_BIAS,
    STORED_MASK,
    STORED_OUT,
    STORED_LSE,
    STORED_KEY_MASS,
    STORED_N
};

/* Host memory of one tensor and its view; rank 0: not there. */
typedef struct {
    const char *name;
    attn_tensor view;
    uint64_t bytes;
} stored_tensor;

typedef struct {
    stored_tensor tensors[STORED_N];
    uint32_t flags; /* ATTN_CALL_BAND */
    int64_t band_lo, band_hi;
    float scale;
} stored_call;

/* Reads the inputs, converted to the element type (bits 0: q's own), and makes room for outputs. */
attn_status stored_read(const char *path, uint8_t code, uint8_t bits, stored_call *call,
                        attn_error *err);
/* Writes out, and lse and key_mass where they are there. */
attn_status stored_write(const char *path, const stored_call *call, const char *op,
                         attn_error *err);
void stored_free(stored_call *call);

/* The view with those memory addresses and device. */
attn_op_call stored_op_call(const stored_call *call, const attn_device *device,
                            void *const data[STORED_N]);

#endif
