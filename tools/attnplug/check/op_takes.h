/* op_takes.h: which of a fixed list of plain calls an op says that it takes.
 *
 * An honest op may be narrow: one head dimension, lengths in whole tiles, contiguous tensors.  So
 * that it is judged on what it does take, each test draws every fourth of its calls from this list.
 */
#ifndef ATTNPLUG_CHECK_OP_TAKES_H
#define ATTNPLUG_CHECK_OP_TAKES_H

#include "check.h"
#include "random.h"

/* Contiguous q, k, v and out with as many key heads as heads; out alone. */
struct plain_shape {
    int64_t Nq, Nk, D;
    uint64_t dtype;
    int tokens_first; /* [B, N, H, D] in memory, else [B, H, N, D] */
};

/* Asks `supports` about each of the list, once a process; not while another thread draws. */
void op_takes_learn(const struct check *k, attn_op *op);
/* How many of the list were taken. */
int op_takes_count(void);
/* One of those that were taken, small ones more often, of one of the types; NULL: none is. */
const struct plain_shape *op_takes_pick(struct random *r, uint64_t dtypes);
/* The list in words, for texts. */
extern const char op_takes_words[];

#endif
