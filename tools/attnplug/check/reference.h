/* reference.h: attention in double precision, straight from the words of attn_abi.h section 3. */
#ifndef ATTNPLUG_CHECK_REFERENCE_H
#define ATTNPLUG_CHECK_REFERENCE_H

#include "attn_abi.h"

/* What the outputs should hold; owned by whoever called reference_open. */
struct reference {
    double *out;      /* [B, H, Nq, Dv] */
    double *lse;      /* [B, H, Nq] */
    double *key_mass; /* [B, Nk] */
    double *probs;    /* [B, H, Nq, Nk] */
};

/* 0, or -1 for no memory. */
int reference_open(struct reference *r, const attn_op_call *call);
void reference_close(struct reference *r);

/* How far a tensor is from its reference (same shape, packed). */
struct distance {
    double relative; /* L2 of the difference over L2 of the reference */
    double cosine;
    int64_t misplaced;  /* elements that are infinite or NaN on one side only, or of other sign */
    int64_t first[4];   /* index of the worst element */
    double got, wanted; /* there */
};
/* floor: the reference's norm counts at least floor per element: 1 for logarithms, whose error is
 * absolute. */
struct distance distance_of(const attn_tensor *t, const double *reference, double floor);

#endif
