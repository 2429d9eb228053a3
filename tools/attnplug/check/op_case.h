/* op_case.h: one random call of an op, with every buffer between guard pages.
 *
 * op_case.c draws the call, op_layout.c its tensors, op_edge.c its edges; op_memory.c gives it
 * memory and values, op_words.c says what it is. */
#ifndef ATTNPLUG_CHECK_OP_CASE_H
#define ATTNPLUG_CHECK_OP_CASE_H

#include "check.h"
#include "guard.h"
#include "random.h"

struct plain_shape; /* op_takes.h */

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

struct sizes {
    int64_t B, H, Hk, Nq, Nk, D, Dv;
};

/* What kind of calls to draw. */
enum op_kind {
    KIND_ANY,   /* everything that the contract allows, small */
    KIND_PLAIN, /* contiguous, no bias, mask, band; out alone */
    KIND_EDGE,  /* sizes of 0 and 1, fully masked rows, minus infinities, huge scores: each edge of
                   the contract in turn, then at random */
    KIND_LONG,  /* thousands of keys: what accumulates shows */
};

/* What a case has that others lack: what wrong cases have in common is where to look. */
enum feature {
    FEATURE_BIAS,
    FEATURE_MASK,
    FEATURE_BAND,
    FEATURE_SCALE,
    FEATURE_NO_SCALE,
    FEATURE_GROUPS,
    FEATURE_KEY_HEADS,
    FEATURE_VALUE_DIM,
    FEATURE_NO_KEYS,
    FEATURE_DARK_ROWS,
    FEATURE_STRIDES,
    FEATURE_REVERSED,
    FEATURE_TOKENS_FIRST,
    FEATURE_LSE,
    FEATURE_KEY_MASS,
    FEATURE_PROBS,
    FEATURE_LENGTHS,
    FEATURE_HALVES,
    FEATURE_COUNT
};
_Static_assert((int)FEATURE_COUNT <= (int)CHECK_FEATURES, "struct result has room for each");
extern const char *const feature_words[FEATURE_COUNT]; /* after "with " */

struct op_case {
    attn_op_call call;
    attn_tensor *tensors[BUF_SCRATCH]; /* those of call */
    struct guard buffers[BUF_COUNT];
    unsigned char
        *elements[BUF_SCRATCH];   /* of an output with gaps: which of its bytes are elements' */
    uint64_t inputs[BUF_SCRATCH]; /* what guard_bits said of each input once it was filled */
    uint64_t seed, index;
    uint32_t features;    /* bits of enum feature */
    int edge;             /* what KIND_EDGE is about; 0: nothing in particular */
    unsigned char poison; /* what outputs and scratch held before the run */
    char text[512];       /* the call in words, for reports */
};

/* Draws shapes, strides, types and flags; data stay NULL.  dtypes: ATTN_DTYPE_... to choose from.
 * Every fourth case is of a shape that the op is known to take, if there is one. */
void op_case_draw(struct op_case *c, enum op_kind kind, uint64_t dtypes, uint64_t seed,
                  uint64_t index);
/* The plain call of that shape. */
void op_case_plain(struct op_case *c, const struct plain_shape *shape, int64_t B, int64_t H);
/* op_memory.c: gives every tensor memory and the inputs values.  0, or -1 for no memory. */
int op_case_fill(struct op_case *c, uint64_t data_seed);
/* Scratch of that many bytes, and poison in it and in the outputs. */
int op_case_scratch(struct op_case *c, uint64_t bytes, unsigned char poison);
void op_case_poison(struct op_case *c, unsigned char poison);
/* Whether something was written to that is no element of an output, and in words where: "outside of
 * out", "between the elements of lse", "to q, an input". */
int op_case_overrun(const struct op_case *c, char *text, size_t bytes);
void op_case_close(struct op_case *c);
const char *op_buffer_name(enum op_buffer b);
/* op_words.c: fills in text and features of a call that is drawn. */
void op_case_words(struct op_case *c);
/* op_layout.c: where the tensors of later cases are; the CPU until then. Not while another thread
 * draws. */
void op_case_device(const attn_device *device);

/* op_edge.c: edge `number` of the contract (from 1 to EDGE_COUNT) in a case of these sizes. */
enum { EDGE_COUNT = 19 };
void op_edge_sizes(int number, struct sizes *s);
void op_edge_options(struct op_case *c, const struct sizes *s);
/* What the edge wants in this place of its bias or mask, else `value`. */
double op_edge_value(const struct op_case *c, int is_mask, const int64_t index[4], double value);
/* op_layout.c, for the edges: a map [B, H, Nq, Nk] of bytes or floats, and outputs. */
attn_tensor op_case_map(const struct sizes *s, uint8_t code, uint8_t bits);
attn_tensor op_case_output(const struct sizes *s, int which);

#endif
