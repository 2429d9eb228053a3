#include "op_tests.h"

#include <stddef.h>

const struct test op_tests[] = {
    {"life", "create, query, destroy; unknown parameters; NULL to destroy and release", op_life,
     NULL},
    {"agreement", "supports says what prepare does, on thousands of calls, without memory",
     op_agreement, NULL},
    {"plain", "contiguous calls against double precision, in each type that the head promises",
     op_plain, NULL},
    {"numbers", "strides, bias, mask, band, GQA, every output, against double precision",
     op_numbers, NULL},
    {"edges", "sizes of 0 and 1, rows that see nothing, minus infinities, huge scores, in turn",
     op_edges, NULL},
    {"long", "thousands of keys", op_long, NULL},
    {"nonfinite", "NaN and infinities in the queries stay in their rows", op_nonfinite, NULL},
    {"replay", "the same plan again: same bits, whatever scratch and outputs held", op_replay,
     "whether a plan can run again"},
    {"allocation", "run takes no memory from the heap", op_allocation, "whether run takes memory"},
    {"order", "the result does not depend on which thread ran what", op_order, NULL},
    {"threads", "two instances, and two plans of one, on two threads at once", op_threads,
     "what two threads do to it"},
    {"leaks", "nothing is left behind: memory, threads, files, floating-point mode, signals",
     op_leaks, NULL},
    {"broken", "calls that break the contract are refused with a text", op_broken, NULL},
    {NULL, NULL, NULL, NULL},
};
