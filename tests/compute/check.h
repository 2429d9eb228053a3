/* check.h: what the tests of compute share: random tensors of any layout, exact access to their
 * elements, comparison with double-precision references, and running an operation dry and real. */
#ifndef ATTNPLUG_TESTS_COMPUTE_CHECK_H
#define ATTNPLUG_TESTS_COMPUTE_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pass.h"

enum layout {
    PLAIN,    /* contiguous */
    SLICE,    /* rows with room after them: part of a wider tensor */
    TURNED,   /* the last dimension is not the innermost */
    BACKWARD, /* the last dimension runs backwards */
    LAYOUTS
};

enum dtype { F32, F16, BF16, I32, U8, DTYPES = I32 };

/* A tensor with its own memory, freed by release, which unloads it first: compute may have packed
 * it. */
struct sample {
    attn_tensor t;
    void *memory;
    uint64_t bytes;
};

/* New normal numbers of deviation 1, of which 1 % are 8 times as large. */
struct sample sample_random(enum dtype type, enum layout layout, uint32_t rank,
                            const int64_t *shape);
/* Outputs: full of NaN. */
struct sample sample_output(enum dtype type, enum layout layout, uint32_t rank,
                            const int64_t *shape);
void sample_release(struct sample *s);
/* Multiplies by a number and rounds again. */
void sample_scale(struct sample *s, double factor);

/* Element i, counted with the last dimension innermost whatever the layout. */
double element(const attn_tensor *t, int64_t i);
void element_set(attn_tensor *t, int64_t i, double value);
double uniform(void); /* [0, 1) */
double normal(void);

/* Relative L2 of t against `expected`, both counted as element does; NaN counts as infinite. */
double distance(const attn_tensor *t, const double *expected);
/* Fails with the figure, the bound and `what` if it is further away. */
void assert_close(const attn_tensor *t, const double *expected, double bound, const char *what);
double bound_of(enum dtype type); /* 2e-6, 1e-3, 8e-3 */

/* One compute and one pass for a test group. */
struct fixture {
    struct compute *c;
    struct pass *pass;
};
int fixture_open(void **state);
int fixture_close(void **state);

/* 77, which Meson counts as skipped, where the processor lacks the kernels that ATTNPLUG_CPU names.
 */
int variant_missing(void);
#define RUN_GROUP(tests)                                                                           \
    (variant_missing() ? 77 : cmocka_run_group_tests(tests, fixture_open, fixture_close))

/* Runs an operation dry, then for real twice on an arena full of NaN, and expects success. */
void run_twice(struct fixture *f, void (*operation)(attn_work *w, void *arg), void *arg);
/* Runs it dry and expects this status and this part of the text. */
void expect_refusal(struct fixture *f, void (*operation)(attn_work *w, void *arg), void *arg,
                    attn_status status, const char *text);

#endif
