/* pass.h: what the rooms of compute share about a forward pass: its plans, its arena, its errors.
 *
 * work->host of every work is the pass that it belongs to.  A pass keeps what its dry runs built
 * under keys of bytes (which operation, which weights, which shapes), so that a real run finds it
 * in whatever order it asks, and may leave some out.  Plans die with the pass; weights that they
 * know by address must outlive it.
 */
#ifndef ATTNPLUG_COMPUTE_PASS_H
#define ATTNPLUG_COMPUTE_PASS_H

#include "compute.h"
#include "layer.h"
#include "tensor.h"

/* -- errors ------------------------------------------------------------------------------------ */

static inline bool work_dry(const attn_work *w)
{
    return w->flags & ATTN_WORK_DRY;
}

/* Sticky: keeps the first failure's status and text.  The text begins with the layer's name where
 * there is one.  Returns w->status. */
__attribute__((format(printf, 3, 4))) attn_status work_fail(attn_work *w, attn_status status,
                                                            const char *format, ...);

/* -- keys and plans ---------------------------------------------------------------------------- */

struct plan_key {
    uint32_t used;
    bool overflow;
    uint8_t bytes[4096];
};

void key_begin(struct plan_key *key, const char *operation);
void key_bytes(struct plan_key *key, const void *bytes, size_t n);
void key_text(struct plan_key *key, const char *text);
/* Shape, strides, type and alignment; not the data. */
void key_tensor(struct plan_key *key, const attn_tensor *t);
/* All of them, byte for byte. */
void key_extensions(struct plan_key *key, const attn_ext *ext);

static inline void key_number(struct plan_key *key, int64_t value)
{
    key_bytes(key, &value, sizeof value);
}

/* NULL if there is none. */
void *plan_find(struct pass *pass, const struct plan_key *key);
/* Takes the plan over: `release` is called when the pass dies, or at once if this fails.  Only in
 * dry runs. */
attn_status plan_keep(attn_work *w, const struct plan_key *key, void *plan,
                      void (*release)(struct compute *c, void *plan));

/* -- the pass ---------------------------------------------------------------------------------- */

struct pass *work_pass(const attn_work *w);

/* As pass_expect was told. */
uint32_t pass_runs(const struct pass *pass);

/* The layer whose processor is running: attend takes its choice of an op.  NULL outside layers. */
struct layer *pass_layer(const struct pass *pass);
void pass_set_layer(struct pass *pass, struct layer *layer);

/* -- attend.c ---------------------------------------------------------------------------------- */

/* attn_compute.attend: by the op of the layer that is running. */
attn_status work_attend(attn_work *w, const attn_op_call *call);

/* -- layer.c ----------------------------------------------------------------------------------- */

/* How the layer wants its attention to be computed, and where to note which op did. */
const struct op_choice *layer_choice(struct layer *l);
void layer_took(struct layer *l, const char *op);
/* Was a call of these shapes planned in the pass? */
bool layer_planned(struct pass *pass, const struct layer *l, const attn_layer_call *call);
/* Closes the processors that were opened for layers of c.  All layers are unbound. */
void processors_close(struct compute *c);

/* -- terms ------------------------------------------------------------------------------------- */

/* Every linear tells which terms it was given (dry runs); layer.c looks for those that no linear
 * saw.  Terms are known by the address of their array. */
void pass_saw_terms(attn_work *w, const attn_linear *linear);
bool pass_has_seen(const struct pass *pass, const attn_term *terms);
void pass_forget_terms(struct pass *pass);

#endif
