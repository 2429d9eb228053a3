/* compute.h: one table of tensor operations, which cpu/ and cuda/ fill and model/ is written
 * against.
 *
 * Layout.  Activations are channels-last: a picture is [B, H, W, C], so that its tokens [B, H*W, C]
 * are the same memory and attention layers cost no transpose.  Last dimensions are contiguous
 * unless an operation says that any stride will do.
 *
 * Two passes.  Every forward pass runs twice over the same code: first dry (ATTN_WORK_DRY: shapes
 * are checked, primitives built, scratch counted; data pointers are NULL or ignored), then as often
 * as wanted for real.  Operations find what the dry pass built by their weights and shapes; a real
 * call that no dry pass saw is ATTN_INTERNAL.  Errors stick to work->status: a forward pass is
 * straight code whose last status is the answer.
 *
 * The plugin-facing part is attn_compute (attn_abi.h); here is the rest of what models need.
 */
#ifndef ATTNPLUG_COMPUTE_COMPUTE_H
#define ATTNPLUG_COMPUTE_COMPUTE_H

#include "attn_router.h"
#include "error.h"

#include <stdbool.h>

struct compute; /* one device, one element type; [any] but for create and destroy */

/* A convolution with weights packed for the device. */
struct conv;

enum activation { ACT_NONE, ACT_SILU, ACT_GELU, ACT_QUICK_GELU };

/* y += scales[slot] * factor * up (down * x): LoRA on a convolution.  down: host memory [rank, in,
 * kernel, kernel], convolved as the weight is; up: at the device, [out, rank], outlives the
 * convolution. */
struct conv_term {
    attn_tensor down, up;
    float factor;
    uint32_t slot; /* of the work's scales */
};

/* What a convolution is; weight is host memory [out, in, kh, kw] of any float type, bias [out] or
 * absent. */
struct conv_desc {
    int64_t in_channels, out_channels;
    int64_t kernel, stride;
    int64_t pad_low, pad_high; /* top and left; bottom and right (the VAE encoder pads 0 and 1) */
    const attn_tensor *weight, *bias;
    const struct conv_term *terms;
    uint32_t n_terms;
    /* NULL: nothing of weight and bias is needed afterwards.  Else weight outlives the convolution:
     * any run may read it, to lay it out as suits the run, and weight_read(ctx, weight) then tells
     * that it has been.  [any] */
    void (*weight_read)(void *ctx, const attn_tensor *weight);
    void *ctx;
    bool seldom; /* run about once a picture: what takes long to prepare does not pay */
};

/* What happens to a convolution's or linear's result before it is stored. */
struct epilogue {
    enum activation activation;  /* applied after bias, before the residual */
    const attn_tensor *residual; /* added last; same shape as y; may be y; NULL for none */
};

/* compute_api.norm's arguments but for y. */
struct norm_call {
    const attn_norm *norm;
    enum activation act;
    const attn_tensor *x, *x2, *add, *scale, *shift; /* all but x may be NULL */
};

struct compute_api {
    const char *name; /* "cpu", "cuda" */

    void (*destroy)(struct compute *c);
    /* Bytes of device memory that are free now.  NULL where device memory is the host's. */
    uint64_t (*free_bytes)(struct compute *c);

    /* -- memory ---------------------------------------------------------------------------------
     */
    /* Brings a tensor from host memory to the device, converted to `dtype` (a zeroed tensor but for
     * code and bits; NULL: the compute's own type).  Contiguous.  On a CPU a tensor that needs no
     * conversion is not copied: the mapped file is used in place and must outlive it. */
    attn_status (*upload)(struct compute *c, const attn_tensor *host, const attn_tensor *dtype,
                          attn_tensor *out, attn_error *err);
    void (*unload)(struct compute *c, attn_tensor *t); /* sets *t to absent */
    /* Queued copies between contiguous host memory and a device tensor of any dtype, converting. */
    attn_status (*write)(attn_work *w, const attn_tensor *host, const attn_tensor *dst);
    attn_status (*read)(attn_work *w, const attn_tensor *src, const attn_tensor *host);
    attn_status (*synchronize)(attn_work *w);
    /* Queues what body queues, which must be the same work each time: recorded once where the
     * device has graphs, then replayed, and body is not called.  Everything in it has run before,
     * at least in part, for real.  name tells recordings of a pass apart; a change of the key's
     * bytes (addresses outside of the arena, settings) makes a new recording.  NULL: none, body is
     * to be called. */
    attn_status (*replay)(attn_work *w, const char *name, const void *key, size_t key_bytes,
                          attn_status (*body)(attn_work *w, void *arg), void *arg);

    /* -- loops at the device; NULL where there is no replay -------------------------------------
     */
    /* y[o] = sum over i of coefficients[*step][o][i] x[i]; a coefficient of 0 leaves its input out.
     * All contiguous and of one number of elements, any float types; y may be x.  coefficients fp32
     * [steps, n_y, n_x], step int32 [1], both at the device: what changes while a recording is
     * replayed.  At most 4 outputs and 8 inputs. */
    attn_status (*mix)(attn_work *w, uint32_t n_y, const attn_tensor *const *y, uint32_t n_x,
                       const attn_tensor *const *x, const attn_tensor *coefficients,
                       const attn_tensor *step);
    /* Every element of y (fp32) = table[*step], fp32 [steps]. */
    attn_status (*pick)(attn_work *w, const attn_tensor *table, const attn_tensor *step,
                        const attn_tensor *y);
    attn_status (*advance)(attn_work *w, const attn_tensor *step); /* *step += 1 */

    /* -- convolution ----------------------------------------------------------------------------
     */
    attn_status (*conv_create)(struct compute *c, const struct conv_desc *desc, struct conv **conv,
                               attn_error *err);
    void (*conv_destroy)(struct compute *c, struct conv *conv);
    /* x [B,H,W,in], y [B,H',W',out].  x may be two tensors laid side by side in channels (x2 NULL:
     * one), so that skip connections need no concatenation.  y may be a channel slice. */
    attn_status (*conv)(attn_work *w, const struct conv *conv, const attn_tensor *x,
                        const attn_tensor *x2, const struct epilogue *e, const attn_tensor *y);
    /* conv of norm's y, a group norm's, which need not be written anywhere.  NULL where nothing is
     * won by it: call norm_conv, which does it in two steps then. */
    attn_status (*norm_conv)(attn_work *w, const struct norm_call *n, const struct conv *conv,
                             const struct epilogue *e, const attn_tensor *y);

    /* conv of x enlarged to y's height and width as upsample does it, likewise. */
    attn_status (*upsample_conv)(attn_work *w, const attn_tensor *x, const struct conv *conv,
                                 const attn_tensor *y);

    /* -- the rest -------------------------------------------------------------------------------
     */
    /* attn_compute.linear with an epilogue. */
    attn_status (*linear)(attn_work *w, const attn_tensor *x, const attn_linear *linear,
                          const struct epilogue *e, const attn_tensor *y);
    /* y = a * gelu(g), [a | g] = linear(x).  linear: [2 C, in]; y [.., C].  diffusers' GEGLU. */
    attn_status (*geglu)(attn_work *w, const attn_tensor *x, const attn_linear *linear,
                         const attn_tensor *y);
    /* GROUP over [B, H, W, C] or [B, tokens, C], LAYER over the last dimension, then the
     * activation.  x may be two tensors side by side in channels (x2 NULL: one); `add` [B, C] is
     * added to x first (the time embedding), `scale` [B, C] and `shift` [B, C] act after the norm:
     * n * (1 + scale) + shift.  All optional.  y may be x where there is no x2. */
    attn_status (*norm)(attn_work *w, const attn_norm *norm, enum activation act,
                        const attn_tensor *x, const attn_tensor *x2, const attn_tensor *add,
                        const attn_tensor *scale, const attn_tensor *shift, const attn_tensor *y);
    /* y = act(x). */
    attn_status (*activate)(attn_work *w, enum activation act, const attn_tensor *x,
                            const attn_tensor *y);
    /* Nearest to y's height and width. x [B,H,W,C], y [B,H',W',C]. */
    attn_status (*upsample)(attn_work *w, const attn_tensor *x, const attn_tensor *y);
    /* y[b,n,:] = table[ids[b,n],:] + positions[n,:].  ids int32 [B,N] at the device. */
    attn_status (*embed)(attn_work *w, const attn_tensor *ids, const attn_tensor *table,
                         const attn_tensor *positions, const attn_tensor *y);
    /* diffusers' sinusoids (models/embeddings.py get_timestep_embedding, v0.26.3).  t fp32 [B] at
     * the device, y [B, dim]. */
    attn_status (*timestep)(attn_work *w, const attn_tensor *t, int32_t flip_sin_to_cos,
                            float freq_shift, const attn_tensor *y);
    /* Self-attention guidance: mask = key_mass > 1 ([B, mh*mw]), enlarged to x0's size by nearest;
     * out = blur(x0) where it is set, else x0; blur is 9 x 9, sigma 1, reflected at the edges.
     * x0, out [B, h, w, C] fp32.  mask_in: bytes [B, mh*mw] to use in place of key_mass, or NULL.
     */
    attn_status (*sag_degrade)(attn_work *w, const attn_tensor *key_mass, int64_t mh, int64_t mw,
                               const attn_tensor *mask_in, const attn_tensor *x0,
                               const attn_tensor *out);
};

/* y = conv(norm(x)), by the device's norm_conv where it has one. */
attn_status norm_conv(attn_work *w, const struct norm_call *n, const struct conv *conv,
                      const struct epilogue *e, const attn_tensor *y);
/* In two steps, with scratch between them. */
attn_status norm_then_conv(attn_work *w, const struct norm_call *n, const struct conv *conv,
                           const struct epilogue *e, const attn_tensor *y);
/* y = conv(x enlarged), 3 x 3 or such: the picture stays of one size.  Likewise. */
attn_status upsample_conv(attn_work *w, const attn_tensor *x, const struct conv *conv,
                          const attn_tensor *y);
attn_status upsample_then_conv(attn_work *w, const attn_tensor *x, const struct conv *conv,
                               const attn_tensor *y);

/* Every compute begins with it. */
struct compute {
    const struct compute_api *api;
    attn_compute plugin; /* "attn.compute/1": ctx is this compute */
    attn_host host;      /* what plugins on this device get; query knows "attn.compute/1" */
    /* Where host.log sends its lines; the owner sets both after create, NULL sends them nowhere. */
    void (*log)(void *ctx, int32_t level, const char *text);
    void *log_ctx;
    /* What `log` was told of ops: hashes of shapes and ids, written and read atomically. */
    uint64_t told[64];
    uint32_t n_told;
    attn_device device;
    void *stream;                  /* that all work of this compute goes to; NULL on a CPU */
    attn_router *router;           /* opened on `host` */
    attn_tensor dtype;             /* the compute's element type: code and bits; the rest 0 */
    uint32_t route;                /* ATTN_ROUTE_AS_... where dtype stands for halves, else 0 */
    struct processors *processors; /* opened for layers (layer.c) */
    /* Bytes that it holds for tensors now, and held at most: weights as far as they are copied or
     * packed, arenas, what plugins take, and what users add with compute_took.  No _Atomic, which
     * C++ cannot read; only the three functions below touch them. */
    uint64_t bytes, bytes_peak;
};

/* Memory was taken or is about to be given back; for whoever takes some beside the compute. [any]
 */
void compute_took(struct compute *c, uint64_t bytes);
void compute_gave(struct compute *c, uint64_t bytes);
uint64_t compute_peak(const struct compute *c);

/* The router of the registry for a CPU. n_threads 0: one per core that this process may run on.
 * registry outlives it; NULL: no router, and attention is ATTN_UNSUPPORTED.  destroy through api.
 */
attn_status compute_cpu_create(attn_registry *registry, uint32_t n_threads, struct compute **out,
                               attn_error *err);

/* "avx512 kernels, oneDNN 2.6.3, OpenMP"; capacity 512 holds all. */
void compute_cpu_about(char *text, size_t capacity);

/* -- the arena of one forward pass (compute/pass.c)
 * ------------------------------------------------ */

/* Plans and arena of one model, for as many shapes as it was planned for. */
struct pass;
attn_status pass_create(struct compute *c, struct pass **pass, attn_error *err);
void pass_destroy(struct pass *pass);
/* Before dry runs: how often what they plan is going to be run, at least, 16 if it is not told.
 * What takes long to prepare is done only where that pays. */
void pass_expect(struct pass *pass, uint32_t runs);
/* A work to run the dry pass with. */
attn_work *pass_dry(struct pass *pass, attn_error *err);
/* After the dry pass: takes the arena (grown to work->peak) and gives the work for real runs.  One
 * real run at a time for each pass.  stream: NULL: the compute's own. */
attn_work *pass_real(struct pass *pass, void *stream, attn_error *err);
uint64_t pass_peak(const struct pass *pass);

/* Scratch from the arena, contiguous, in the compute's type (dtype NULL) or another; data NULL in a
 * dry run. pass_mark and pass_reset free everything taken since. */
attn_tensor work_take(attn_work *w, const attn_tensor *dtype, uint32_t rank, const int64_t *shape);
uint64_t work_mark(const attn_work *w);
void work_reset(attn_work *w, uint64_t mark);
struct compute *work_compute(const attn_work *w);

#endif
