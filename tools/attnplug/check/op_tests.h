/* op_tests.h: the tests of an op, one function each; op_list.c has their names. */
#ifndef ATTNPLUG_CHECK_OP_TESTS_H
#define ATTNPLUG_CHECK_OP_TESTS_H

#include "check.h"

void op_life(const struct check *k, struct result *r);
void op_agreement(const struct check *k, struct result *r);
void op_numbers(const struct check *k, struct result *r);
void op_plain(const struct check *k, struct result *r);
void op_edges(const struct check *k, struct result *r);
void op_long(const struct check *k, struct result *r);
void op_nonfinite(const struct check *k, struct result *r);
void op_replay(const struct check *k, struct result *r);
void op_allocation(const struct check *k, struct result *r);
void op_order(const struct check *k, struct result *r);
void op_threads(const struct check *k, struct result *r);
void op_leaks(const struct check *k, struct result *r);
void op_broken(const struct check *k, struct result *r);

#endif
