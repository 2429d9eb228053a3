/* cuda_math_problem.h: the calls that fit the grids of cuda_math's kernels. */
#ifndef CUDA_MATH_PROBLEM_H
#define CUDA_MATH_PROBLEM_H

#include "flash_problem.h"

/* A call that op_call_check took, as the kernels see it.  They have a block for a query, and one
 * for a key of a batch entry where key_mass is wanted, in the grid's first dimension. */
static inline attn_status cuda_math_problem_of(const char *who, const attn_op_call *call,
                                               const struct op_shape *s, flash_problem *p,
                                               attn_error *err)
{
    const int64_t queries = s->batch * s->heads * s->nq;
    const int64_t keys = call->key_mass.rank ? s->batch * s->nk : 0;
    attn_status status = flash_problem_of(who, call, s, p, err);
    if (status == ATTN_OK && (queries > INT_MAX || keys > INT_MAX))
        status = attn_fail(err, ATTN_UNSUPPORTED, "%s: %lld %s in all, expected at most %d", who,
                           (long long)(queries > INT_MAX ? queries : keys),
                           queries > INT_MAX ? "queries" : "keys for key_mass", INT_MAX);
    return status;
}

#endif
