/* op_case.h: one random call of an op, with every buffer between guard pages. */
#ifndef ATTNPLUG_CHECK_OP_CASE_H
#define ATTNPLUG_CHECK_OP_CASE_H

#include "guard.h"
#include "random.h"

enum op_buffer {
    BUF_Q,
    BUF_K,
    BUF_V,
    BUF_OUT,
    BUF_BIAS,
    BUF_MASK,
    BUF_LSE,
    BUF_KEY_MASS,
    BUF_PROBS,
    BUF_SCRATCH,
    BUF_COUNT
};

/* What kind of calls to draw. */
enum op_kind {
    KIND_ANY,   /* everything that the contract allows, small */
    KIND_PLAIN, /* contiguous, no bias, mask, band; out alone */
    KIND_EDGE,  /* sizes of 0 and 1, fully masked rows, minus infinities, huge scores */
    KIND_LONG,  /* thousands of keys: what accumulates shows */
};

struct op_case {
    attn_op_call call;
    attn_tensor *tensors[BUF_SCRATCH]; /* those of call */
    struct guard buffers[BUF_COUNT];
    uint64_t seed, index;
    unsigned char poison; /* what outputs and scratch held before the run */
    char text[512];       /* the call in words, for reports */
};

/* Draws shapes, strides, types and flags; data stay NULL.  dtypes: ATTN_DTYPE_... to choose from.
 */
void op_case_draw(struct op_case *c, enum op_kind kind, uint64_t dtypes, uint64_t seed,
                  uint64_t index);
/* Gives every tensor memory and the inputs values.  0, or -1 for no memory. */
int op_case_fill(struct op_case *c, uint64_t data_seed);
/* Scratch of that many bytes, and poison in it and in the outputs. */
int op_case_scratch(struct op_case *c, uint64_t bytes, unsigned char poison);
void op_case_poison(struct op_case *c, unsigned char poison);
/* The name of the first buffer whose surroundings were written to, or NULL. */
const char *op_case_overrun(const struct op_case *c);
void op_case_close(struct op_case *c);
const char *op_buffer_name(enum op_buffer b);
/* Where the tensors of later cases are; the CPU until then. Not while another thread draws. */
void op_case_device(const attn_device *device);

#endif
