/* bench.h: how fast are the ops?  Verify, then time.
 *
 * shapes.c      which attentions: named sets, or one as B,H,Nq,Nk,D
 * stats.c       medians and the clock
 * values.c      inputs
 * verify.c      an op's result against the device's reference op in fp32
 * measure.c     the ops of one shape: plans, rounds in turns, rows
 * place_cuda.c  memory and clocks of a GPU; place_cpu.c those of the CPU
 * roofline.c    the least time that a chip needs; fma_peak.c measures the CPU's
 * report.c      the table, and --json
 * tune.c        keeps the timings as auto's order
 */
#ifndef ATTNPLUG_BENCH_BENCH_H
#define ATTNPLUG_BENCH_BENCH_H

#include "attn_router.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { BENCH_MAX_SHAPES = 64, BENCH_MAX_OPS = 16, BENCH_MAX_ROUNDS = 101 };
enum { BENCH_MAX_SECONDS = 3600 };

/* -- shapes.c ---------------------------------------------------------------------------------- */

struct bench_shape {
    int64_t b, h, nq, nk, d;
};
/* The shapes of a named set (sd15, sdxl, flux) or of "B,H,Nq,Nk,D", added to shapes[*n].  False
 * where the text is neither or there is no more room. */
bool bench_shapes_add(const char *text, struct bench_shape shapes[BENCH_MAX_SHAPES], int *n);
double bench_flop(const struct bench_shape *s); /* 4 B H Nq Nk D */

/* -- stats.c ----------------------------------------------------------------------------------- */

double bench_median(double *values, int n); /* sorts them */
double bench_now_ms(void);

/* -- places: where tensors live and how time is taken ------------------------------------------ */

/* Runs something for the i-th set of buffers on `stream`. */
typedef attn_status (*bench_run)(void *ctx, int i, void *stream, attn_error *err);

struct bench_place {
    attn_device device;
    char name[128];     /* the chip, for people */
    char versions[256]; /* "driver 13.0" */
    const char *peer;   /* id of the op that ratios refer to, or NULL; the reference itself is timed
                           on the part that it verifies and scaled to the whole */
    const char *reference; /* id of the op that results are compared with */
    size_t rotate;         /* bytes that the buffer sets exceed together */
    double tape_flop;      /* a tape holds calls of about that many operations in all, at most 40 */
    int64_t verified;      /* queries of the last head that are compared, 0: all of all heads */
    double peak_gflops;    /* measured when the place was made ready, 0: not */
    void *own;

    /* Once, with the threads that the ops will have: measures what is to be measured. May be NULL.
     */
    void (*ready)(struct bench_place *p, const attn_host *host);
    attn_status (*alloc)(struct bench_place *p, uint64_t bytes, void **data, attn_error *err);
    void (*free)(struct bench_place *p, void *data);
    attn_status (*put)(struct bench_place *p, void *to, const void *from, uint64_t bytes,
                       attn_error *err);
    attn_status (*get)(struct bench_place *p, void *to, const void *from, uint64_t bytes,
                       attn_error *err);
    /* run(ctx, 0 .. n-1): once, not timed. */
    attn_status (*once)(struct bench_place *p, bench_run run, void *ctx, int n, attn_error *err);
    /* The same as a tape that play runs: on a GPU a captured graph. */
    attn_status (*record)(struct bench_place *p, bench_run run, void *ctx, int n, void **tape,
                          attn_error *err);
    attn_status (*play)(struct bench_place *p, void *tape, double *ms, attn_error *err);
    void (*drop)(struct bench_place *p, void *tape);
    /* The same from the host, call by call: with what a launch costs. NULL where play is that. */
    attn_status (*eager)(struct bench_place *p, bench_run run, void *ctx, int n, double *ms,
                         attn_error *err);
    /* Least ms for a shape on this chip, 0 where it is not known. */
    double (*floor_ms)(const struct bench_place *p, const struct bench_shape *s, uint8_t bits);
    void (*close)(struct bench_place *p);
};
attn_status bench_place_open(const attn_device *device, struct bench_place *p, attn_error *err);
attn_status bench_place_cuda(const attn_device *device, struct bench_place *p, attn_error *err);
attn_status bench_place_cpu(const attn_device *device, struct bench_place *p, attn_error *err);

/* roofline.c: least ms on an NVIDIA GPU: matrix products, exponentials or memory. 0: not known. */
struct gpu;
double bench_roofline_cuda(const struct gpu *gpu, const struct bench_shape *s, uint8_t bits);

/* -- measure.c --------------------------------------------------------------------------------- */

struct bench {
    attn_registry *registry;
    const attn_host *host; /* what ops get: threads, and other ops to work through */
    struct bench_place *place;
    uint8_t code, bits;
    bool key_mass;
    int rounds, seconds;            /* for a shape and op: at most so many, and about so long */
    const char *ops[BENCH_MAX_OPS]; /* ids; n_ops 0: every op of the device but the reference */
    int n_ops;
};

struct bench_row {
    char op[64], version[16];
    struct bench_shape shape;
    char refused[256];          /* why there are no times, "" where there are */
    int rounds;                 /* whose median it is: fewer than asked for where the op is slow */
    double median_ms, eager_ms; /* eager 0: not taken apart */
    double tflops, ratio, share,
        error; /* ratio to the peer and share of the floor: 0 where not known */
};

/* Rows of all ops for one shape, at most BENCH_MAX_OPS.  Fails where a result is wrong. */
attn_status bench_measure(const struct bench *b, const struct bench_shape *s,
                          struct bench_row *rows, int *n, attn_error *err);

/* -- values.c, verify.c ------------------------------------------------------------------------ */

/* The host's copy of one input: normal with outliers, rounded to the type, packed. */
void bench_values(void *to, int64_t elements, uint8_t code, uint8_t bits, uint64_t seed);
/* As floats. */
void bench_widen(const void *from, float *to, int64_t elements, uint8_t code, uint8_t bits);

struct bench_inputs {
    void *q, *k, *v; /* host, packed [B, H, N, D], in the type of the timing */
};
/* Runs `op` on the inputs and compares with `reference`, which gets them in fp32: *error is the
 * relative L2, the larger of out's and key_mass's; *reference_ms what the reference would take for
 * all queries, from the part that it computed. */
attn_status bench_verify(const struct bench *b, const struct bench_shape *s, attn_host_op *op,
                         attn_host_op *reference, const struct bench_inputs *in, double *error,
                         double *reference_ms, attn_error *err);

/* A packed call of the shape on the place's device, without data. */
attn_op_call bench_call(const struct bench *b, const struct bench_shape *s, uint8_t code,
                        uint8_t bits);
uint64_t bench_bytes(const attn_tensor *t);

/* -- report.c
 * -------------------------------------------------------------------------------------- */

void bench_table_head(const struct bench *b);
void bench_table_row(const struct bench *b, const struct bench_row *row);
void bench_json(const struct bench *b, const struct bench_row *rows, int n, const char *command);

/* -- tune.c ------------------------------------------------------------------------------------ */

/* Adds the timings to the user's measured order (attn_order_row), in place of older ones of the
 * same op, device, type and shape. */
attn_status bench_tune(const struct bench *b, const char *dtype, const struct bench_row *measured,
                       int n_measured, attn_error *err);

#endif
