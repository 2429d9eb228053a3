/* device.h: what the tests of the CUDA kernels share: tensors of any layout in host memory and at
 * the device, exact access to their elements, comparison with double-precision references. */
#ifndef ATTNPLUG_TESTS_CUDA_DEVICE_H
#define ATTNPLUG_TESTS_CUDA_DEVICE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels.h"

enum layout {
    PLAIN,    /* contiguous */
    SLICE,    /* rows with room after them, 16-byte aligned */
    ODD,      /* rows with room after them, not aligned */
    TURNED,   /* the last dimension is not the innermost */
    BACKWARD, /* the last dimension runs backwards */
    LAYOUTS
};

enum dtype { F32, F16, BF16, I32, U8, DTYPES = I32 };

struct sample {
    attn_tensor t; /* at the device */
    attn_tensor h; /* the same in host memory */
    void *memory;  /* of h; what was there before the kernel */
    void *fetched; /* what was there after it */
    void *device;
    size_t bytes;
};

/* New normal numbers of deviation 1, of which 1 % are 8 times as large, plus `offset`. */
struct sample sample_random(enum dtype type, enum layout layout, uint32_t rank,
                            const int64_t *shape, double offset);
/* Outputs: full of NaN. */
struct sample sample_output(enum dtype type, enum layout layout, uint32_t rank,
                            const int64_t *shape);
void sample_upload(struct sample *s); /* after elements of h were set */
/* Waits for the device, brings the tensor back into h, and fails if memory between its elements
 * changed. */
void sample_fetch(struct sample *s);
void sample_release(struct sample *s);

/* Element i of a tensor in host memory, counted with the last dimension innermost. */
double element(const attn_tensor *t, int64_t i);
void element_set(attn_tensor *t, int64_t i, double value);
int64_t count_of(const attn_tensor *t);
double uniform(void);
double activation(int act, double x);

/* Fetches s and fails if it is further (relative L2) from `expected` than its type's bound: 2e-6,
 * 1e-3, 8e-3; NaN counts as infinite.  bound 0 takes that, another replaces it. */
void expect_close(struct sample *s, const double *expected, double bound, const char *what);
double *doubles(int64_t n);

/* Fails, with the error's text, unless a launch returned 0. */
void expect_launched(int error, const char *what);
#define LAUNCH(name, ...) expect_launched(attn_cuda_kernels.name(__VA_ARGS__, NULL), #name)

void *device_take(size_t bytes); /* full of 0xFF */
void device_free(void *data);

int elements_group(void);
int norms_group(void);
int sources_group(void);
int bench(void);

#endif
