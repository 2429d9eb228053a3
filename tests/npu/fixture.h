/* fixture.h: the plugin in a test's hands: attention on tensors that are copied to the device
 * through attn.memory/1, and the same in double.  Nothing here knows of the stand-in: the same
 * cases run on hardware. */
#ifndef NPU_FIXTURE_H
#define NPU_FIXTURE_H

#include "attn_abi.h"

#include <stddef.h>

struct npu {
    const attn_op_api *api;
    const attn_memory *memory;
    attn_op *op;
    attn_host host;
    char text[512]; /* of the last failure */
    attn_error err;
};

/* Loads the file that NPU_PLUGIN names, once; NULL with the reason on stderr. */
const attn_op_api *npu_api(void);
/* Starts a table without an op. */
void npu_begin(struct npu *npu);
/* Creates the op on device 0, by its runtime's name. */
attn_status npu_create(struct npu *npu);
void npu_destroy(struct npu *npu);

enum layout { HEADS_FIRST, TOKENS_FIRST, PACKED }; /* PACKED: q, k, v in one [B, N, 3, H, D] */
enum shared { ABSENT, FULL, BY_BATCH, BY_HEADS, BY_BOTH, BY_ROWS };

/* An attention to compute: sizes, and what of the contract it uses. Zero is the plain default. */
struct problem {
    const char *name;
    int64_t batch, heads, kv_heads, nq, nk, d, dv; /* kv_heads, dv 0: as heads, d */
    int bfloat;
    enum layout layout;
    enum shared bias, mask;
    int hide_rows; /* some rows of the mask are empty */
    int band;
    int64_t lo, hi;
    int lse, lse_strided;
    float scale;
    int64_t shift; /* elements by which tensors begin beside an aligned address */
    uint32_t seed;
};

/* A tensor's memory on both sides. */
struct buffer {
    void *host, *device;
    uint64_t bytes;
};
enum { BUFFERS = 7 }; /* q k v out bias mask lse */

struct attention {
    struct problem p;
    attn_op_call call; /* data at the device once attention_in has run */
    attn_op_call host; /* the same tensors with data at the host */
    struct buffer buffer[BUFFERS];
    attn_op_plan *plan;
    void *scratch;
    uint64_t scratch_bytes;
    double *out, *lse; /* expected, contiguous */
};

/* Builds host tensors of random numbers and what is expected. No data at the device. */
void attention_make(struct attention *a, const struct problem *p);
void attention_free(struct attention *a);

/* Steps, each with the device's status; what was made is given back by attention_undo. */
attn_status attention_prepare(struct npu *npu, struct attention *a);
attn_status attention_in(struct npu *npu, struct attention *a, void *stream);
attn_status attention_run(struct npu *npu, struct attention *a, void *stream);
attn_status attention_out(struct npu *npu, struct attention *a, void *stream);
/* All of them. */
attn_status attention_steps(struct npu *npu, struct attention *a, void *stream);
void attention_undo(struct npu *npu, struct attention *a);
/* attention_steps and attention_undo. */
attn_status attention_do(struct npu *npu, struct attention *a, void *stream);

/* Relative L2 of out and lse against what is expected; infinities must match exactly, else it is
 * infinite. */
double attention_error(const struct attention *a);
double attention_bound(const struct attention *a);

#endif
