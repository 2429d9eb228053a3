/* fake_compute.h: an "attn.compute/1" for tests of processors without the library.
 *
 * Sums in double, fp32 tensors of any stride.  Strict about the contract: a dry run must see no
 * data, a real run must make the calls of the dry run in their order with the same shapes, strides,
 * types, alignment and weights (with ATTN_LAYER_CALL_SAME it may leave some out), outputs overlap
 * nothing that they may not, scratch stays within what was counted, and bind-time memory is given
 * back.
 */
#ifndef FAKE_COMPUTE_H
#define FAKE_COMPUTE_H

#include "attn_abi.h"

#include <stddef.h>

enum { FAKE_STEPS = 256, FAKE_TEXT = 512 };

enum fake_kind { FAKE_LINEAR, FAKE_NORM, FAKE_ATTEND, FAKE_COMBINE, FAKE_COPY, FAKE_FILL };

/* One call as the dry run saw it; all but weights without data. */
struct fake_step {
    enum fake_kind kind;
    attn_tensor t[8];
    float alpha, beta;
    uint32_t flags;
    const void *weights;
};

struct fake_compute {
    attn_compute table; /* "attn.compute/1" */
    attn_host host;
    struct fake_step steps[FAKE_STEPS]; /* of the last dry run */
    uint32_t n_steps, cursor;
    int may_skip;              /* the real run has ATTN_LAYER_CALL_SAME */
    uint32_t count[6];         /* calls of the current run by kind, dry or real */
    uint64_t terms_seen;       /* terms that reached linear in the dry run */
    uint64_t allocs, live;     /* calls of alloc; blocks not freed */
    uint64_t refuse_alloc_at;  /* this call of alloc fails; 0 none */
    attn_status refuse_attend; /* what attend answers to requests of key_mass; 0: serves them */
};

void fake_init(struct fake_compute *fake);

/* Everything that a processor takes from prepare to run. */
struct fake_run {
    struct fake_compute *fake;
    const attn_processor_api *api;
    attn_work work;
    attn_error err;
    char text[FAKE_TEXT];
    void *arena;
    uint64_t arena_bytes;
    attn_layer_plan *plan;
};

/* call's data pointers are hidden from prepare.  Poisons the arena with NaN before each run and
 * looks for writes behind it. */
attn_status fake_prepare(struct fake_run *run, struct fake_compute *fake,
                         const attn_processor_api *api, attn_binding *binding,
                         attn_layer_call *call);
attn_status fake_execute(struct fake_run *run, attn_layer_call *call);
void fake_release(struct fake_run *run);

/* A work for bind. */
attn_work fake_bind_work(struct fake_compute *fake, attn_error *err);

#endif
