/* forward.h: the steps that attention layers are made of, in the order in which diffusers' standard
 * processor takes them (v0.26.3 src/diffusers/models/attention_processor.py, AttnProcessor):
 *
 *   enter       residual; spatial norm; pixels to tokens; group norm
 *   linear ..   queries, keys, values
 *   attend      by the op that the host chose
 *   leave       to_out, residual, rescale
 *
 * Tensors that steps return are scratch of the call's arena, of the hidden states' type; in a dry
 * run their data is NULL.  Nothing here looks at data, so that dry and real runs go alike.
 */
#ifndef ATTN_COMMON_FORWARD_H
#define ATTN_COMMON_FORWARD_H

#include "processor.h"

/* One run of a layer, dry or real. */
struct forward {
    const attn_compute *compute;
    const attn_binding *binding;
    const attn_layer *layer;
    attn_layer_plan *plan;
    const attn_layer_call *call;
    attn_work *work;
    int64_t batch, tokens;
    attn_tensor residual; /* the hidden states as tokens */
    attn_tensor out;      /* the result as tokens */
    attn_tensor x;        /* tokens after the norms */
    uint64_t kept;        /* bytes of the plan's memory given out so far */
};

/* Puts the first failure into work->status and work->err; the text is opened by the layer's name.
 */
__attribute__((format(printf, 3, 4))) void forward_fail(struct forward *f, attn_status status,
                                                        const char *format, ...);
int forward_dry(const struct forward *f);
/* Keys and values of this plan's previous run serve: projections may be skipped. */
int forward_same(const struct forward *f);
int forward_has_encoder(const struct forward *f);

/* Scratch [a, b, c]. */
attn_tensor forward_take(struct forward *f, int64_t a, int64_t b, int64_t c);
/* [a, b, c] of the plan's own memory, which stays from run to run. */
attn_tensor forward_keep(struct forward *f, int64_t a, int64_t b, int64_t c);

/* Checks the call; fills batch, tokens, residual, out, and x = residual. */
void forward_begin(struct forward *f);
/* x = spatial_norm(x, temb), where the layer has one. */
void forward_spatial_norm(struct forward *f);
/* x = group_norm(x), where the layer has one. */
void forward_group_norm(struct forward *f);
/* All three. */
void forward_enter(struct forward *f);

/* linear(x) in new scratch [B, N, out]. */
attn_tensor forward_project(struct forward *f, const attn_tensor *x, const attn_linear *linear);
/* y = linear(x). */
void forward_linear(struct forward *f, const attn_tensor *x, const attn_linear *linear,
                    const attn_tensor *y);
/* The encoder states after norm_cross. */
attn_tensor forward_encoder(struct forward *f);
/* Fails: encoder states are missing. */
void forward_need_encoder(struct forward *f);
/* Keys and values: of the encoder states, kept in the plan, or of x. */
void forward_keys(struct forward *f, const attn_linear *to_k, const attn_linear *to_v,
                  attn_tensor *k, attn_tensor *v);

/* Whose attention it is: the layer's own takes bias and mask and gives lse, key_mass and probs. */
enum attention { ATTENTION_OWN, ATTENTION_IMAGE };
/* The call of an op on q, k, v, o as [B, N, H * D]. */
attn_op_call forward_op_call(const struct forward *f, enum attention whose, const attn_tensor *q,
                             const attn_tensor *k, const attn_tensor *v, const attn_tensor *o);
void forward_attend(struct forward *f, enum attention whose, const attn_tensor *q,
                    const attn_tensor *k, const attn_tensor *v, const attn_tensor *o);

/* out = (linear(o) + residual) / rescale; residual NULL: none. */
void forward_output(struct forward *f, const attn_tensor *o, const attn_linear *linear,
                    const attn_tensor *residual, float rescale);
/* The same with to_out, residual and rescale as the layer has them. */
void forward_leave(struct forward *f, const attn_tensor *o);

/* The whole of diffusers' AttnProcessor. */
void forward_standard(struct forward *f);

#endif
