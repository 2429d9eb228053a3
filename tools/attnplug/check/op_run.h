/* op_run.h: steps that the op tests share. */
#ifndef ATTNPLUG_CHECK_OP_RUN_H
#define ATTNPLUG_CHECK_OP_RUN_H

#include "check.h"
#include "op_case.h"
#include "reference.h"

/* An attn_error whose buffer ends at a guard page; its text is checked after each refusal. */
struct caught {
    struct guard buffer;
    attn_error err;
};
/* 0, or -1 after a finding. */
int caught_open(struct caught *c, struct result *r);
void caught_clear(struct caught *c);
/* After a refusal: a line that is there, ended and within its capacity, else a finding. */
void caught_look(struct caught *c, struct result *r, const char *function, attn_status s);
void caught_close(struct caught *c);

/* An instance on `host`; NULL after a finding (or a skip where the plugin says UNSUPPORTED). */
attn_op *instance_open(const struct check *k, const attn_host *host, struct result *r);

/* supports, prepare, scratch, run: ATTN_OK with the outputs written, ATTN_UNSUPPORTED, or a finding
 * and another status.  *plan stays open on ATTN_OK (release it). */
attn_status case_run(const struct check *k, attn_op *op, struct op_case *c, struct caught *e,
                     attn_op_plan **plan, struct result *r);
/* Compares what the run wrote with double precision; a finding for what is too far. */
void case_compare(const struct check *k, struct op_case *c, struct result *r);
/* Counts a case that was compared, among the right ones or the wrong ones. */
void features_count(const struct op_case *c, int is_wrong, struct result *r);
/* At a test's end: what all its wrong cases have, and no right one, or few. */
void features_tell(struct result *r);
/* A sum over the bits of the outputs' elements, to see whether two runs agree. */
uint64_t case_bits(const struct op_case *c);

#endif
