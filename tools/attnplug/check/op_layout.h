/* op_layout.h: how the tensors of a case lie in memory: shapes, types and strides, without data. */
#ifndef ATTNPLUG_CHECK_OP_LAYOUT_H
#define ATTNPLUG_CHECK_OP_LAYOUT_H

#include "op_case.h"
#include "strided.h"

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
int layout_is_packed(const attn_tensor *t);
/* Neither of the two usual orders, or gaps. */
int layout_is_odd(const attn_tensor *t);

#endif
