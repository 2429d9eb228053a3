/* check.c: which calls aclnnFlashAttentionScore takes, and how it wants to hear of them. */
#include "npu_flash.h"

static attn_status refuse_range(attn_error *err, const char *what, int64_t value, int64_t most)
{
    return attn_fail(err, ATTN_UNSUPPORTED, NAME ": %s is %lld, expected 1 to %lld", what,
                     (long long)value, (long long)most);
}

static attn_status sizes_check(const struct op_shape *s, attn_error *err)
{
    const struct {
        const char *what;
        int64_t value, most;
    } limits[] = {
        {"the batch", s->batch, MAX_BATCH},        {"the number of heads", s->heads, MAX_HEADS},
        {"the query's length", s->nq, MAX_LENGTH}, {"the keys' length", s->nk, MAX_LENGTH},
        {"the head dimension", s->d, MAX_DIM},     {"the values' dimension", s->dv, s->d},
    };
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
        if (limits[i].value < 1 || limits[i].value > limits[i].most)
            return refuse_range(err, limits[i].what, limits[i].value, limits[i].most);
    return ATTN_OK;
}

static attn_status strides_check(const attn_op_call *c, attn_error *err)
{
    const struct {
        const char *name;
        const attn_tensor *tensor;
    } all[] = {{"q", &c->q},       {"k", &c->k},       {"v", &c->v},    {"out", &c->out},
               {"bias", &c->bias}, {"mask", &c->mask}, {"lse", &c->lse}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        for (uint32_t axis = 0; axis < all[i].tensor->rank; axis++)
            if (all[i].tensor->stride[axis] < 0)
                return attn_fail(err, ATTN_UNSUPPORTED,
                                 NAME ": stride %u of %s is %lld, expected 0 or more", axis,
                                 all[i].name, (long long)all[i].tensor->stride[axis]);
    return ATTN_OK;
}

static attn_status types_check(const struct attn_op *op, const attn_op_call *c, attn_error *err)
{
    if (c->q.device_type != ATTN_DEVICE_EXT || c->q.device_id != op->device)
        return attn_fail(err, ATTN_UNSUPPORTED,
                         NAME ": tensors are on device %d:%d, expected %d:%d (CANN)",
                         c->q.device_type, c->q.device_id, ATTN_DEVICE_EXT, op->device);
    if (!(op_dtype(&c->q) & (ATTN_DTYPE_F16 | ATTN_DTYPE_BF16)))
        return attn_fail(err, ATTN_UNSUPPORTED,
                         NAME ": q has type code %u bits %u, expected float16 or bfloat16",
                         c->q.code, c->q.bits);
    if (c->bias.rank && op_dtype(&c->bias) != op_dtype(&c->q))
        return attn_fail(err, ATTN_UNSUPPORTED,
                         NAME ": bias has type code %u bits %u, expected q's %u and %u",
                         c->bias.code, c->bias.bits, c->q.code, c->q.bits);
    return strides_check(c, err);
}

/* What is made of CANN's small operators is there only where they are. */
static attn_status extras_check(const struct cann *cann, const attn_op_call *c,
                                const struct npu_call *read, attn_error *err)
{
    const struct {
        int wanted, there;
        const char *what, *symbol;
    } needs[] = {
        {c->bias.rank != 0, cann->aclnnMuls != NULL, "a bias", "aclnnMuls"},
        {c->mask.rank != 0, cann->aclnnLogicalNot != NULL, "a mask", "aclnnLogicalNot"},
        {c->lse.rank != 0, cann->aclnnLog != NULL, "lse", "aclnnLog"},
        {c->lse.rank != 0, cann->aclnnAdd != NULL, "lse", "aclnnAdd"},
        {c->lse.rank != 0 && read->hidden_rows, cann->aclnnMuls != NULL,
         "lse where rows may see no key", "aclnnMuls"},
    };
    if (c->key_mass.rank || c->probs.rank)
        return attn_fail(err, ATTN_UNSUPPORTED, NAME ": does not give %s",
                         c->key_mass.rank ? "key_mass" : "probs");
    if (read->band && c->mask.rank)
        return attn_fail(err, ATTN_UNSUPPORTED,
                         NAME ": a mask together with a band, expected one of them");
    for (size_t i = 0; i < sizeof needs / sizeof *needs; i++)
        if (needs[i].wanted && !needs[i].there)
            return attn_fail(err, ATTN_UNSUPPORTED, NAME ": %s needs %s, which this CANN lacks",
                             needs[i].what, needs[i].symbol);
    return ATTN_OK;
}

/* band_lo <= j - i <= band_hi, as sparse mode 4 has it: tokens before and after the diagonal that
 * ends in the lower right corner. */
static attn_status band_read(const attn_op_call *c, struct npu_call *read, attn_error *err)
{
    const struct op_shape *s = &read->shape;
    const int64_t lowest = 1 - s->nq, highest = s->nk - 1, corner = s->nk - s->nq;
    int64_t lo = c->band_lo < lowest ? lowest : c->band_lo;
    int64_t hi = c->band_hi > highest ? highest : c->band_hi;
    if (!(c->flags & ATTN_CALL_BAND) || (lo == lowest && hi == highest))
        return ATTN_OK;
    if (lo > hi)
        return attn_fail(
            err, ATTN_UNSUPPORTED, NAME ": the band %lld to %lld hides every key of %lld by %lld",
            (long long)c->band_lo, (long long)c->band_hi, (long long)s->nq, (long long)s->nk);
    read->band = 1;
    read->hidden_rows = hi < 0 || lo > corner;
    read->pre_tokens = corner - lo;
    read->next_tokens = hi - corner;
    return ATTN_OK;
}

/* A bias may be shared by the batch; a mask by the heads, and by the batch where it is by them. */
static void broadcasts_read(const attn_op_call *c, struct npu_call *read)
{
    const struct op_shape *s = &read->shape;
    read->bias_batch = c->bias.stride[0] == 0 ? 1 : s->batch;
    read->mask_heads = c->mask.stride[1] == 0 ? 1 : s->heads;
    read->mask_batch = c->mask.stride[0] == 0 && read->mask_heads == 1 ? 1 : s->batch;
}

attn_status call_read(const struct attn_op *op, const attn_op_call *call, struct npu_call *read,
                      attn_error *err)
{
    *read = (struct npu_call){0};
    attn_status status = op_call_check(NAME, call, &read->shape, err);
    if (status == ATTN_OK)
        status = types_check(op, call, err);
    if (status != ATTN_OK)
        return status;
    const struct op_shape *s = &read->shape;
    read->nothing = s->batch == 0 || s->heads == 0 || s->nq == 0;
    read->hidden_rows = call->mask.rank != 0;
    if (!read->nothing) {
        status = sizes_check(s, err);
        if (status == ATTN_OK)
            status = band_read(call, read, err);
    }
    if (status == ATTN_OK)
        status = extras_check(op->cann, call, read, err);
    if (status == ATTN_OK)
        broadcasts_read(call, read);
    return status;
}
