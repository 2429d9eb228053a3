#include "op_tests.h"

const struct test op_tests[] = {
    {"life", "create, query, destroy; unknown parameters; NULL to destroy and release", op_life},
    {"agreement", "supports says what prepare does, on thousands of calls, without memory",
     op_agreement},
    {"plain", "contiguous calls against double precision, in each type that the head promises",
     op_plain},
    {"numbers", "strides, bias, mask, band, GQA, every output, against double precision",
     op_numbers},
    {"edges", "sizes of 0 and 1, rows that see nothing", op_edges},
    {"long", "thousands of keys", op_long},
    {"nonfinite", "NaN and infinities in the inputs stay in their rows", op_nonfinite},
    {"replay", "the same plan again: same bits, whatever scratch and outputs held", op_replay},
    {"allocation", "run takes no memory from the heap", op_allocation},
    {"order", "the result does not depend on which thread ran what", op_order},
    {"threads", "two instances, and two plans of one, on two threads at once", op_threads},
    {"leaks", "nothing is left behind: memory, threads, files, floating-point mode, signals",
     op_leaks},
    {"broken", "calls that break the contract are refused with a text", op_broken},
    {0, 0, 0},
};
