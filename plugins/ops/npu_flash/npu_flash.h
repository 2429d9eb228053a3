/* npu_flash.h: what the files of this op share. */
#ifndef NPU_FLASH_H
#define NPU_FLASH_H

#include "cann.h"
#include "error.h"
#include "op_call.h"

#include <pthread.h>

struct attn_op {
    const struct cann *cann;
    int32_t device;
    aclrtContext context; /* the device's own, which streams of aclrtSetDevice's users belong to */
    void *anchor;         /* a device address to plan with, never read */
    pthread_mutex_t lock; /* band_mask */
    void *band_mask; /* [BAND_MASK, BAND_MASK] bytes, 1 above the diagonal; NULL until needed */
};

/* What CANN documents for aclnnFlashAttentionScore. */
enum { MAX_HEADS = 256, MAX_LENGTH = 1 << 20, MAX_BATCH = 2 << 20, MAX_DIM = 768 };
enum { BAND_MASK = 2048 };    /* the mask that sparse modes 2 to 4 want */
enum { SOFTMAX_COLUMNS = 8 }; /* of their maximum and sum, all alike */
enum { ADDRESS_ALIGNMENT = 32, REGION_ALIGNMENT = 512 };

/* A call that passed the checks. */
struct npu_call {
    struct op_shape shape;
    int nothing;                     /* no output has an element */
    int band;                        /* a band that hides something */
    int hidden_rows;                 /* a row that sees no key is possible */
    int64_t pre_tokens, next_tokens; /* with band: as sparse mode 4 counts them */
    int64_t bias_batch;              /* 1 or B: of the scaled bias */
    int64_t mask_batch, mask_heads;  /* 1, or B and H: of the turned mask */
};

/* Offsets into the call's scratch. */
struct regions {
    uint64_t workspace, workspace_bytes; /* one for all steps, which follow one another */
    uint64_t bias, mask, max, sum, log, tmp;
    uint64_t total;
};

struct attn_op_plan {
    struct attn_op *op;
    struct npu_call call;
    int variant; /* which aclnnFlashAttentionScore took the shapes */
    struct regions regions;
};

/* device.c: this thread on the op's device, and back to what it was. */
attn_status device_enter(const struct attn_op *op, aclrtContext *previous, attn_error *err);
void device_leave(const struct attn_op *op, aclrtContext previous);
attn_status device_alloc(const struct attn_op *op, uint64_t bytes, void **data, attn_error *err);
attn_status device_band_mask(struct attn_op *op, attn_error *err);

/* check.c: reads no data. */
attn_status call_read(const struct attn_op *op, const attn_op_call *call, struct npu_call *read,
                      attn_error *err);

/* One walk over the steps of a call: a dry one takes workspace sizes, a real one launches. */
struct walk {
    struct attn_op_plan *plan;
    const attn_op_call *call;
    int dry;
    uint64_t workspace_bytes; /* the largest so far */
    attn_error *err;
};

/* steps.c */
attn_status walk_steps(struct walk *w);
/* launch.c: both phases of one operator; `size_status` is what its first phase returned. */
attn_status walk_launch(struct walk *w, const char *name, aclnnStatus size_status,
                        cann_launch *launch, uint64_t bytes, aclOpExecutor *executor);
/* score.c: aclnnFlashAttentionScore in the variant that the plan has, or the first that takes it.
 */
struct score_args {
    aclTensor *query, *key, *value, *bias, *mask, *max, *sum, *out;
    double scale;
    int64_t pre_tokens, next_tokens, heads, inner_precise, sparse_mode;
    char *layout;
};
attn_status walk_score(struct walk *w, const struct score_args *args);

/* describe.c: descriptors of one step, destroyed together. */
enum { MAX_TENSORS = 8 };
struct tensors {
    const struct cann *cann;
    aclTensor *tensor[MAX_TENSORS];
    int count;
    aclScalar *scalar;
    int failed;
};
/* A view of `t` with axes in the order of `axes`; data NULL is the op's anchor. */
aclTensor *tensors_add(struct tensors *s, const struct attn_op *op, const attn_tensor *t,
                       const int axes[4], int32_t type);
aclScalar *tensors_scalar(struct tensors *s, float value);
void tensors_destroy(struct tensors *s);
/* A contiguous tensor of scratch at an offset. */
attn_tensor region_tensor(const struct walk *w, uint64_t offset, const int64_t shape[4],
                          uint8_t code, uint8_t bits);

/* plan.c: functions of attn_op_api. */
attn_status plan_prepare(attn_op *op, const attn_op_call *call, attn_op_plan **plan,
                         uint64_t *scratch, attn_error *err);
attn_status plan_run(attn_op_plan *plan, const attn_op_call *call, attn_error *err);
void plan_release(attn_op_plan *plan);

extern const attn_memory npu_memory; /* memory.c */

#endif
