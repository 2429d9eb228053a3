/* attn_abi.h: the contract between attention plugins and the engines that load them.  DRAFT
 *
 * THE PROMISE.  From 1.0 on nothing in this file changes: a plugin built against it loads in every
 * later host, a host built against it loads every later v1 plugin.  What comes later is another
 * symbol (attn_op_v2), an interface asked for by name (query), or an extension of a call
 * (attn_ext). Until 1.0 the first line says DRAFT, the layout may still move, and ATTN_ABI moves
 * with it, so that a host refuses what it would misread.  abi/ABI.md has the rules, numbered, with
 * who enforces each.
 *
 * WHAT A PLUGIN IS.  A shared object that exports one or both of two const data symbols:
 *
 *   attn_op_v1         an op: softmax(scale Q K^T + bias) V                         (section 3)
 *   attn_processor_v1  a processor: a whole attention layer, projections and all    (section 5)
 *
 * Both begin with an attn_head of plain bytes, which a host reads from the file before any code of
 * the plugin runs.  A plugin imports nothing from its host; the host gives it an attn_host at
 * create. Files stay mapped once opened: plugins are never unloaded.
 *
 * THREADS.  Each function carries a tag:
 *   [any]   from any thread, also while other functions of the same object run
 *   [plan]  from any thread, but one call at a time for the same plan
 *   [owner] not while any other call on the same object is in progress
 * A plugin starts no threads of its own on the CPU; it uses attn_host.parallel_for.
 *
 * MEMORY.  Nothing allocated on one side is freed on the other.  The caller owns every tensor, all
 * scratch and every error text.  Pointers in a call (call, params, ext) are dead once it returns;
 * tensors, scratch and plan must live until the stream has passed the work, and for as long as a
 * graph into which it was captured may be replayed.  What a function returns through pointers
 * counts with ATTN_OK alone: after another status nobody reads it, frees it or releases it.
 *
 * Needs C99 or C++98 with <stdint.h>; any 64-bit ELF target of either endianness (little-endian
 * files are what hosts of today read).  Types are fixed-width; there is no enum, bool or bit-field.
 */
#ifndef ATTN_ABI_H
#define ATTN_ABI_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------------------------------------
 * 1. Words: version, status, error, device, tensor, parameter, extension
 * ------------------------------------------------------------------------------------------ */

#define ATTN_MAGIC 0x4E545441u /* the bytes "ATTN" */

/* Low half: the contract's version.  High half: the draft's number, 0 from 1.0 on.  Hosts compare
 * the whole word for equality. */
#define ATTN_ABI 0x00010001u

/* Protected: a program that exports a symbol of the same name must not take the plugin's place. */
#define ATTN_EXPORT __attribute__((visibility("protected")))

/* What a function made of a call. Any other value is taken as ATTN_INTERNAL. */
typedef int32_t attn_status;
#define ATTN_OK          0
#define ATTN_UNSUPPORTED 1 /* a right call, but not for this plugin: ask another */
#define ATTN_INVALID     2 /* a call that breaks the contract: asking another will not help */
#define ATTN_NOMEM       3 /* host or device memory ran out; the object stays usable */
#define ATTN_DEVICE      4 /* the device or its driver failed; the object may only be destroyed */
#define ATTN_INTERNAL    5 /* the plugin's own fault */

/* Where a function writes why it did not return ATTN_OK.  Caller owns all of it; any attn_error
 * pointer may be NULL.  A callee that fails writes at most `capacity` bytes, NUL included, of
 * UTF-8: one line that names the thing, its value and what was expected. */
typedef struct {
    uint32_t size;     /* sizeof(attn_error) */
    uint32_t capacity; /* bytes at `text`, 0 if there is none */
    char *text; /* NUL-terminated by the caller before the call; may be NULL if capacity is 0 */
    int64_t vendor_code; /* the driver's own code, 0 if it has none */
} attn_error;

/* One link of a chain of extensions to a call or a layer.  The struct of the extension begins with
 * it.  Who meets an id that it does not know passes over it, unless ATTN_EXT_REQUIRED is set: then
 * it returns ATTN_UNSUPPORTED and names the id. */
typedef struct attn_ext {
    const struct attn_ext *next; /* NULL at the end */
    const char *id;              /* "vendor.name/1" */
    uint32_t size;               /* of the whole extension struct, this link included */
    uint32_t flags;
} attn_ext;
#define ATTN_EXT_REQUIRED 1u

/* Device types are DLPack's numbers (dlpack.h, DLDeviceType). */
#define ATTN_DEVICE_CPU  1
#define ATTN_DEVICE_CUDA 2
#define ATTN_DEVICE_EXT  12 /* shared by several vendors: `runtime` tells them apart */

typedef struct {
    int32_t type;     /* ATTN_DEVICE_... */
    int32_t id;       /* ordinal, from 0 */
    char runtime[24]; /* whose handles streams and pointers are: "cpu", "cuda", "cann", ...; "" with
                         ATTN_DEVICE_EXT: the plugin's own, from a host that has no such handles and
                         goes through "attn.memory/1" with NULL streams */
} attn_device;

/* Element types: DLPack's (code, bits, lanes) with lanes 1.  In attn_head.dtypes each has a bit. */
#define ATTN_CODE_INT    0u
#define ATTN_CODE_UINT   1u
#define ATTN_CODE_FLOAT  2u
#define ATTN_CODE_BFLOAT 4u

#define ATTN_DTYPE_F32  (UINT64_C(1) << 0)
#define ATTN_DTYPE_F16  (UINT64_C(1) << 1)
#define ATTN_DTYPE_BF16 (UINT64_C(1) << 2)
#define ATTN_DTYPE_F64  (UINT64_C(1) << 3)

/* A strided view of memory that somebody else owns.
 * Absent is rank == 0, never data == NULL: planning happens before memory exists, so supports and
 * prepare read shapes, strides and types, and may see data NULL.  Nothing else of an absent tensor
 * is read.
 * Strides count elements, may be negative, and may be 0 in inputs (broadcast); in outputs no two
 * elements share an address.  Entries past `rank` are ignored, as are the strides of dimensions of
 * size 1 or 0. */
typedef struct {
    void *data;          /* of element 0; on device_type, and aligned to the element's size */
    int64_t shape[4];    /* each >= 0 */
    int64_t stride[4];   /* in elements */
    int32_t device_type; /* ATTN_DEVICE_... */
    int32_t device_id;
    uint8_t code;   /* ATTN_CODE_... */
    uint8_t bits;   /* of one element */
    uint16_t lanes; /* 1 */
    uint32_t rank;  /* 0: the tensor is absent; else 1 to 4 */
    uint32_t align; /* the caller promises data % align == 0 at run; a power of two, 0 promises no
                       more than an element's */
    uint32_t reserved;
} attn_tensor;

/* A named value: number, text or tensor, as `kind` says; the other fields are 0.
 * Names are diffusers' own where it has one ("rank", "to_k_ip.0.weight"). */
typedef struct {
    const char *name;
    uint32_t kind;
    uint32_t reserved;
    int64_t i;
    double f;
    const char *text;
    const attn_tensor
        *tensor; /* with data; at bind it lives until unbind, elsewhere for the call */
} attn_param;
#define ATTN_PARAM_INT    1u /* also for flags: 0 or 1 */
#define ATTN_PARAM_FLOAT  2u
#define ATTN_PARAM_TEXT   3u
#define ATTN_PARAM_TENSOR 4u

/* ---------------------------------------------------------------------------------------------
 * 2. What both sides show each other
 * ------------------------------------------------------------------------------------------ */

/* The first bytes of either symbol.  Plain bytes: no pointer in it, nothing a relocation would
 * fill, so that it can be read from the file.  Texts are NUL-terminated UTF-8, padded with NULs. */
typedef struct {
    uint32_t magic;   /* ATTN_MAGIC */
    uint32_t abi;     /* ATTN_ABI */
    uint32_t size;    /* of the whole symbol: hosts want >= what they know */
    uint32_t flags;   /* ATTN_HEAD_... */
    uint64_t devices; /* bit n: device type n */
    uint64_t
        dtypes;  /* ATTN_DTYPE_... of query, key, value and out (op) or hidden states (processor) */
    char id[64]; /* "org.attnplug.math": reversed domain, [a-z0-9._-] only */
    char version[16]; /* "1.2.0" */
    char vendor[32];  /* who answers for it */
    char summary[96]; /* one line for people */
} attn_head;
#define ATTN_HEAD_CAPTURABLE    1u /* run may be captured into a graph of the stream's runtime */
#define ATTN_HEAD_APPROXIMATE   2u /* beyond the rounding of its dtypes; taken only where allowed */
#define ATTN_HEAD_NEEDS_COMPUTE 4u /* processors: create fails without "attn.compute/1" */
#define ATTN_HEAD_TERMS         8u /* processors: low-rank terms of linears reach attn_compute.linear */

/* What an engine lends to the plugins on one device.  It outlives everything created with it. */
typedef struct {
    uint32_t size;        /* sizeof(attn_host) */
    uint32_t max_threads; /* slots of parallel_for, at least 1 */
    void *ctx;            /* first argument of the functions below */

    /* [any] One line of UTF-8 for a log.  level 0 error, 1 warning, 2 information, 3 detail.
     * May be NULL. */
    void (*log)(void *ctx, int32_t level, const char *text);

    /* [any] Calls body on ranges that together cover [0, n) once, and returns when all are done.
     * Ranges other than the last are multiples of `grain` (>= 1) long.  `thread` < max_threads is
     * unique among bodies of this call that run at the same time, and of this call alone: a body
     * that calls again gets numbers from 0 there too, and wants other memory for them.  Running
     * everything in the caller is legal, and calls from within a body do.  May be NULL: then the
     * plugin runs serially.  body must not fail or unwind. */
    void (*parallel_for)(void *ctx, int64_t n, int64_t grain,
                         void (*body)(void *arg, int64_t begin, int64_t end, uint32_t thread),
                         void *arg);

    /* [any] An interface of the host by its id ("attn.compute/1", "attn.attend/1"), or NULL where
     * it has none of it.  May itself be NULL.  What it returns lives as long as this struct. */
    const void *(*query)(void *ctx, const char *id);
} attn_host;

/* ---------------------------------------------------------------------------------------------
 * 3. Op: softmax(scale Q K^T + bias) V
 * ------------------------------------------------------------------------------------------ */

typedef struct attn_op attn_op;           /* an op on one device; the plugin's own */
typedef struct attn_op_plan attn_op_plan; /* what it worked out for one set of shapes */

/* One attention.  For batch b, head h, query i, key j, with hk = h / (H / Hk):
 *
 *   s[j]     = scale * sum_d q[b,h,i,d] k[b,hk,j,d] + bias[b,h,i,j]   over the keys that i may see
 *   lse      = log(sum_j exp(s[j]))                                   natural logarithm
 *   p[j]     = exp(s[j] - lse), 0 for keys that i may not see
 *   out      = sum_j p[j] v[b,hk,j,:]
 *   key_mass[b,j] = (1/H) sum_h sum_i p[j]
 *
 * Query i may see key j if mask[b,h,i,j] != 0 (where there is a mask) and band_lo <= j - i <=
 * band_hi (with ATTN_CALL_BAND).  A bias never hides a key unless it is minus infinity.  A row that
 * sees no key gives out 0, lse minus infinity and nothing to key_mass; so does Nk == 0.  B, H or Nq
 * of 0 is nothing to do for out, lse and probs, and ATTN_OK; key_mass is 0 then.  Keys and values
 * that no row may see must still be finite numbers.
 *
 * q, k, v and out are of one float type, a bias of any; all tensors lie on the op's device.
 *
 * Between prepare and run only data pointers, stream and scratch may change. */
typedef struct {
    uint32_t size; /* sizeof(attn_op_call) */
    uint32_t flags;
    attn_tensor q;        /* [B, H, Nq, D]; D at least 1 */
    attn_tensor k;        /* [B, Hk, Nk, D]; H a multiple of Hk */
    attn_tensor v;        /* [B, Hk, Nk, Dv] */
    attn_tensor out;      /* [B, H, Nq, Dv]; overlaps no input */
    attn_tensor bias;     /* [B, H, Nq, Nk] or absent; float; added to the scaled scores */
    attn_tensor mask;     /* [B, H, Nq, Nk] or absent; 8-bit unsigned: non-zero may be seen */
    attn_tensor lse;      /* [B, H, Nq] fp32, or absent: not wanted */
    attn_tensor key_mass; /* [B, Nk] fp32, or absent */
    attn_tensor probs;    /* [B, H, Nq, Nk] fp32, or absent */
    int64_t band_lo;      /* with ATTN_CALL_BAND; INT64_MIN and INT64_MAX are no bound */
    int64_t band_hi;
    float scale; /* finite; 0 stands for 1 / sqrt(D) */
    uint32_t reserved;
    void *stream;  /* the runtime's own handle; NULL is its default stream; unused on a CPU */
    void *scratch; /* scratch_bytes at the device, aligned to 256; contents undefined */
    uint64_t scratch_bytes; /* at least what prepare asked for; of 0 scratch may be NULL */
    const attn_ext *ext;    /* or NULL; the same in run as in prepare */
} attn_op_call;
#define ATTN_CALL_BAND 1u
#define ATTN_CALL_F32_SCORES                                                                       \
    2u                           /* q k^T in fp32 at least, whatever the inputs (upcast_attention) \
                                  */
#define ATTN_CALL_F32_SOFTMAX 4u /* softmax in fp32 at least (upcast_softmax) */

/* All functions must be there but query, which may be NULL. */
typedef struct {
    attn_head head;

    /* [any] An op for `device`, with parameters of its own (strict: one that it does not know is
     * ATTN_INVALID and named).  ATTN_UNSUPPORTED with the reason where it cannot run: no such
     * device, chip, driver or library.  host outlives the op.  Writes *op only with ATTN_OK. */
    attn_status (*create)(const attn_host *host, const attn_device *device,
                          const attn_param *params, uint32_t n_params, attn_op **op,
                          attn_error *err);

    /* [owner] All plans are released and all work is done.  NULL does nothing. */
    void (*destroy)(attn_op *op);

    /* [any] Would prepare take this call?  Reads no data, allocates nothing that outlives it, costs
     * well under a microsecond: routers ask it for every candidate. */
    attn_status (*supports)(attn_op *op, const attn_op_call *call, attn_error *err);

    /* [any] Gets ready for calls of these shapes, strides, types and flags.  May allocate, compile
     * and wait; reads no tensor data.  *scratch is what run needs, in bytes, 0 for none.  A simple
     * op may return any non-NULL pointer as its plan. */
    attn_status (*prepare)(attn_op *op, const attn_op_call *call, attn_op_plan **plan,
                           uint64_t *scratch, attn_error *err);

    /* [plan] Computes (CPU) or queues on call->stream (devices).  Allocates nothing, waits for
     * nothing, and does the same work each time. */
    attn_status (*run)(attn_op_plan *plan, const attn_op_call *call, attn_error *err);

    /* [owner] The stream has passed what run queued.  NULL does nothing. */
    void (*release)(attn_op_plan *plan);

    /* [any] An interface of the plugin by its id ("attn.memory/1", "attn.params/1"), or NULL where
     * it has none of it.  What it returns is there for good. */
    const void *(*query)(const char *id);
} attn_op_api;

extern ATTN_EXPORT const attn_op_api attn_op_v1;

/* ---------------------------------------------------------------------------------------------
 * 4. Interfaces asked for by name
 * ------------------------------------------------------------------------------------------ */

/* op query "attn.memory/1": the device's memory, for whoever has tensors in host memory only, or
 * wants scratch.  All [any].  Copies are ordered on the stream; `host` memory stays valid and
 * unchanged until synchronize, which waits for all that the stream was given. */
typedef struct {
    uint32_t size;
    uint32_t reserved;
    /* Aligned to 256. */
    attn_status (*alloc)(attn_op *op, uint64_t bytes, void **device_data, attn_error *err);
    /* The stream has passed the work that uses it.  NULL does nothing. */
    void (*free)(attn_op *op, void *device_data);
    attn_status (*copy_in)(attn_op *op, void *device_data, const void *host_data, uint64_t bytes,
                           void *stream, attn_error *err);
    attn_status (*copy_out)(attn_op *op, void *host_data, const void *device_data, uint64_t bytes,
                            void *stream, attn_error *err);
    attn_status (*synchronize)(attn_op *op, void *stream, attn_error *err);
} attn_memory;

/* op or processor query "attn.params/1": what create (ops) or bind (processors) takes, for help
 * texts and for naming the nearest match of a misspelt one.  Static data. */
typedef struct {
    const char *name; /* '*' stands for a run of characters: "*.to_q_lora.down.weight" */
    uint32_t kind;    /* ATTN_PARAM_... */
    uint32_t flags;   /* ATTN_PARAM_REQUIRED */
    const char *help; /* one line: meaning, unit, default */
} attn_param_info;
#define ATTN_PARAM_REQUIRED 1u

typedef struct {
    uint32_t size;
    uint32_t count;
    const attn_param_info *params;
} attn_param_list;

/* host query "attn.attend/1": other ops, for an op that works through them.  A refusal of the inner
 * op comes through with its text.  As with any op, the call brings the scratch that prepare asked
 * for. */
typedef struct attn_inner attn_inner;
typedef struct {
    uint32_t size;
    uint32_t reserved;
    void *ctx; /* first argument of the functions below */
    /* [any] As attn_op_api.prepare, for the op of that name or id ("auto" is not taken). */
    attn_status (*prepare)(void *ctx, const char *op, const attn_op_call *call, attn_inner **inner,
                           uint64_t *scratch, attn_error *err);
    /* [plan] */
    attn_status (*run)(attn_inner *inner, const attn_op_call *call, attn_error *err);
    /* [owner] NULL does nothing. */
    void (*release)(attn_inner *inner);
    /* [any] y = a x + b y on the stream; fp32, same shapes, any strides; with b == 0 y is not read.
     */
    attn_status (*sum)(void *ctx, void *stream, float a, const attn_tensor *x, float b,
                       const attn_tensor *y, attn_error *err);
} attn_attend;

/* ---------------------------------------------------------------------------------------------
 * 5. Processor: a whole attention layer
 *
 * diffusers' `Attention` module (v0.26.3, src/diffusers/models/attention_processor.py) as data: the
 * weights, and how the module was configured.  A processor reads what it needs of it.
 * ------------------------------------------------------------------------------------------ */

typedef struct attn_processor attn_processor;   /* a processor on one device */
typedef struct attn_binding attn_binding;       /* bound to one layer's weights; read-only in run */
typedef struct attn_layer_plan attn_layer_plan; /* for one set of shapes */

/* A low-rank term of a linear: + factor * scales[slot] * (x down^T) up^T.  (Hu et al. 2021, LoRA.)
 */
typedef struct {
    uint32_t kind; /* ATTN_TERM_LOW_RANK; another is ATTN_UNSUPPORTED */
    uint32_t slot; /* index into attn_work.scales */
    float factor;  /* alpha / rank, or 1 */
    uint32_t reserved;
    attn_tensor down; /* [rank, in] */
    attn_tensor up;   /* [out, rank] */
} attn_term;
#define ATTN_TERM_LOW_RANK 0u

/* y = x weight^T + bias + terms.  Absent where weight.rank == 0. */
typedef struct {
    attn_tensor weight; /* [out, in] */
    attn_tensor bias;   /* [out] or absent */
    const attn_term *terms;
    uint32_t n_terms;
    uint32_t reserved;
} attn_linear;

typedef struct {
    uint32_t kind;   /* ATTN_NORM_... */
    uint32_t groups; /* GROUP, SPATIAL */
    float eps;
    uint32_t reserved;
    attn_tensor weight; /* [channels] or absent */
    attn_tensor bias;   /* [channels] or absent */
    attn_linear
        conv_y; /* SPATIAL: 1x1 convolutions of zq as linears: norm(x) * conv_y(zq) + conv_b(zq) */
    attn_linear conv_b;
} attn_norm;
#define ATTN_NORM_NONE    0u
#define ATTN_NORM_LAYER   1u /* over channels */
#define ATTN_NORM_GROUP   2u /* over tokens and the channels of a group */
#define ATTN_NORM_SPATIAL 3u /* diffusers' SpatialNorm */

/* The host owns it and all it points to, and changes nothing from bind to unbind. */
typedef struct {
    uint32_t size; /* sizeof(attn_layer) */
    uint32_t flags;
    const char
        *name; /* diffusers' name of the layer, for texts: "mid_block.attentions.0...attn1" */
    int64_t heads;
    int64_t dim_head;
    int64_t query_dim; /* channels of hidden states */
    int64_t cross_dim; /* channels of encoder states; query_dim in a self layer */
    float scale;   /* of the scores; 1 / sqrt(dim_head), or 1 where diffusers has scale_qk False */
    float rescale; /* rescale_output_factor: the result is divided by it; never 0 */
    attn_linear to_q; /* [heads * dim_head, query_dim] */
    attn_linear to_k; /* [heads * dim_head, cross_dim]; absent with ATTN_LAYER_ONLY_CROSS */
    attn_linear to_v;
    attn_linear
        to_out; /* to_out.0: [channels of out, heads * dim_head]; query_dim but for out_dim */
    attn_linear add_k; /* add_k_proj, add_v_proj: [heads * dim_head, added channels], or absent */
    attn_linear add_v;
    attn_norm group_norm;   /* NONE or GROUP */
    attn_norm norm_cross;   /* NONE, LAYER or GROUP */
    attn_norm spatial_norm; /* NONE or SPATIAL */
    const attn_ext *ext;    /* or NULL */
} attn_layer;
#define ATTN_LAYER_RESIDUAL 1u /* residual_connection */
#define ATTN_LAYER_ONLY_CROSS                                                                      \
    2u /* only_cross_attention: keys and values from encoder states alone */
#define ATTN_LAYER_UPCAST_ATTENTION 4u
#define ATTN_LAYER_UPCAST_SOFTMAX   8u

/* The arena and the state of one layer call.  The caller's; a processor hands it on to compute.
 * To take scratch: round `used` up to 256, the address is base + used, add the bytes, raise `peak`
 * to `used` where that is more; set `used` back to free it.  In a dry run base is 0 and only the
 * sums count. */
typedef struct {
    uint32_t size; /* sizeof(attn_work) */
    uint32_t flags;
    attn_status status; /* the first failure; compute functions return it at once from then on */
    uint32_t reserved;
    void *host;        /* the compute's own */
    void *stream;      /* as attn_op_call.stream */
    uint64_t base;     /* address of the arena at the device, aligned to 256 */
    uint64_t capacity; /* its bytes */
    uint64_t used;
    uint64_t peak;
    attn_error *err;     /* takes the text of that first failure; may be NULL */
    const float *scales; /* [n_scales] host memory: one for each slot of the linears' terms */
    uint32_t n_scales;
    uint32_t reserved2;
    const char *name; /* the layer's, for texts */
} attn_work;
#define ATTN_WORK_DRY 1u /* check, plan and count; touch no data, launch nothing */

/* One run of a layer.  Between prepare and run only data pointers, params' values, what `work`
 * holds and ATTN_LAYER_CALL_SAME may change. */
typedef struct {
    uint32_t size; /* sizeof(attn_layer_call) */
    uint32_t flags;
    attn_tensor hidden;  /* [B, N, C], or [B, C, height, width] */
    attn_tensor encoder; /* [B, M, cross_dim], or absent: self attention */
    attn_tensor out;     /* as hidden, with to_out's channels; may be the same memory */
    attn_tensor
        bias; /* [B, heads, N, keys] or absent: diffusers' attention_mask, made so by the host */
    attn_tensor mask; /* [B, heads, N, keys] bytes or absent; non-zero may be seen */
    attn_tensor temb; /* zq of the spatial norm: [B, C', height', width'], or absent */
    attn_tensor lse; /* wanted from the layer's own attention (self or text), as in attn_op_call: */
    attn_tensor key_mass; /* never from image branches; absent where not wanted */
    attn_tensor probs;
    const attn_tensor *images; /* n_images: [B, images, tokens, channels] each, one per adapter */
    uint32_t n_images;
    uint32_t n_params;
    const attn_param *params; /* runtime values: "scale", "<adapter>.scale", "ip_adapter_scale.<i>";
                                 names that the processor does not know are passed over */
    attn_work *work;
    const attn_ext *ext; /* or NULL */
} attn_layer_call;

/* Encoder states, images, their weights and scales are those of this plan's previous run, so keys
 * and values projected then may be kept; a plugin may ignore it.  INVALID where nothing was kept.
 * The run that fills must have been executed, not only captured: the host alone can know.  prepare
 * passes it over. */
#define ATTN_LAYER_CALL_SAME 1u

/* All functions must be there but query, which may be NULL. */
typedef struct {
    attn_head head;

    /* [any] As attn_op_api.create. */
    attn_status (*create)(const attn_host *host, const attn_device *device,
                          const attn_param *params, uint32_t n_params, attn_processor **processor,
                          attn_error *err);

    /* [owner] All bindings are unbound. */
    void (*destroy)(attn_processor *processor);

    /* [any] Binds a layer and the processor's own parameters (strict: one that it does not know is
     * ATTN_INVALID, as is a weight of the wrong shape).  May take memory through compute.alloc, and
     * call compute with `work`, which has the stream and no arena.  err takes the text; work->err,
     * which may be the same, that of a failure in compute. */
    attn_status (*bind)(attn_processor *processor, const attn_layer *layer,
                        const attn_param *params, uint32_t n_params, attn_work *work,
                        attn_binding **binding, attn_error *err);

    /* [owner] All plans are released. */
    void (*unbind)(attn_binding *binding);

    /* [any] A dry run of the layer's own code (work->flags has ATTN_WORK_DRY): leaves in work->peak
     * what run will take, and in work->err why not.  `used` is as it was before.  A failure is
     * work->status too, here and in run. */
    attn_status (*prepare)(attn_binding *binding, const attn_layer_call *call,
                           attn_layer_plan **plan);

    /* [plan] */
    attn_status (*run)(attn_layer_plan *plan, const attn_layer_call *call);

    /* [owner] As attn_op_api.release. */
    void (*release)(attn_layer_plan *plan);

    /* [any] As attn_op_api.query. */
    const void *(*query)(const char *id);
} attn_processor_api;

extern ATTN_EXPORT const attn_processor_api attn_processor_v1;

/* host query "attn.compute/1": what a layer needs besides its own code.  All but alloc and free
 * work in work->stream's order, check shapes, and in a dry run plan without touching data.  Tensors
 * are fp32, fp16 or bf16, each of a type of its own (attend's are attn_op_call's).  Any stride is
 * legal, 0 for inputs; leading dimensions of x and y must agree.  Each returns work->status once
 * that is not ATTN_OK.  [any], one call at a time for the same work. */
typedef struct {
    uint32_t size;
    uint32_t reserved;
    void *ctx; /* first argument of alloc and free */
    /* At bind and prepare only.  Device memory, aligned to 256. */
    attn_status (*alloc)(void *ctx, uint64_t bytes, void **data, attn_error *err);
    void (*free)(void *ctx, void *data); /* never in run; NULL does nothing */
    /* y = alpha (x weight^T + bias + terms) + beta c.  x [.., in], y and c [.., out]; y may be c.
     * c may be NULL or absent where beta is 0. */
    attn_status (*linear)(attn_work *work, float alpha, const attn_tensor *x,
                          const attn_linear *linear, float beta, const attn_tensor *c,
                          const attn_tensor *y);
    /* LAYER and GROUP: x, y [B, tokens, channels].  SPATIAL: x, y [B, channels, height, width] with
     * zq, which is resized to nearest. */
    attn_status (*norm)(attn_work *work, const attn_norm *norm, const attn_tensor *x,
                        const attn_tensor *zq, const attn_tensor *y);
    /* One attention by the op that the host chose for the layer; stream and scratch are filled in.
     */
    attn_status (*attend)(attn_work *work, const attn_op_call *call);
    /* out = alpha a + beta b, same shapes; out may be a or b. */
    attn_status (*combine)(attn_work *work, float alpha, const attn_tensor *a, float beta,
                           const attn_tensor *b, const attn_tensor *out);
    /* dst = src, converted; dimensions of src that are 1, or missing in front, are broadcast. */
    attn_status (*copy)(attn_work *work, const attn_tensor *src, const attn_tensor *dst);
    /* Every element of dst = value. */
    attn_status (*fill)(attn_work *work, float value, const attn_tensor *dst);
} attn_compute;

#ifdef __cplusplus
}
#endif

#endif /* ATTN_ABI_H */
