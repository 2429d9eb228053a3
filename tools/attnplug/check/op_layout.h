/* op_layout.h: how the tensors of a case lie in memory: shapes, types and strides, without data. */
#ifndef ATTNPLUG_CHECK_OP_LAYOUT_H
#define ATTNPLUG_CHECK_OP_LAYOUT_H

#include "op_case.h"

enum layout {
    LAYOUT_PACKED,       /* [B,H,N,D] */
    LAYOUT_TOKENS_FIRST, /* [B,N,H,D] */
    LAYOUT_ROWS,         /* each tensor one of the two, with or without gaps between rows */
    LAYOUT_ODD           /* also elements of a row apart, rows that run along memory's other axis */
};

/* q, k, v or out.  r may be NULL where the layout leaves nothing to chance. */
attn_tensor layout_tensor(struct random *r, uint64_t dtype, int64_t b, int64_t h, int64_t n,
                          int64_t d, enum layout layout);
/* A map [B, H, Nq, Nk]; each axis may be broadcast, that of the keys seldom. */
attn_tensor layout_map(struct random *r, const struct sizes *s, uint64_t dtype);
/* One key and value for all heads or for all samples, as a view. */
void layout_broadcast(struct random *r, attn_op_call *call);
/* Makes one or more axes run backwards in memory; what is promised of element 0's address becomes
 * what then holds. */
void layout_reverse(struct random *r, attn_tensor *t);
/* Elements from the lowest address to element 0, and from there to behind the highest. */
int64_t layout_before(const attn_tensor *t);
int64_t layout_behind(const attn_tensor *t);
int layout_is_packed(const attn_tensor *t);
/* An axis with more than one element runs backwards. */
int layout_is_reversed(const attn_tensor *t);
/* Neither of the two usual orders, or gaps. */
int layout_is_odd(const attn_tensor *t);

#endif
