/* harness.h: what the tests and benchmarks of ops stand on: plugins opened by the header alone, a
 * host with a few threads, and calls whose tensors are guarded, strided and poisoned. */
#ifndef TESTS_OPS_HARNESS_H
#define TESTS_OPS_HARNESS_H

#include "attn_abi.h"

#include <stddef.h>

/* A host with that many threads (at most 8); "attn.attend/1" reaches the plugins of the folder. */
const attn_host *harness_host(uint32_t threads);

struct plugin {
    const attn_op_api *api;
    attn_op *op;
};

/* The folder that plugin files are opened from. */
void harness_folder(const char *folder);
const attn_op_api *harness_api(const char *name);
/* Fails the test where create does. cpu NULL: the widest kernels; else ATTNPLUG_CPU. */
struct plugin plugin_open(const char *name, const char *cpu, uint32_t threads);
void plugin_close(struct plugin *plugin);

/* Whether these kernels of memory_efficient run here. */
int harness_variant(const char *cpu);

enum dtype { F32, F16, BF16 };
extern const char *const dtype_names[];

/* How q, k, v and out lie in memory. */
enum layout {
    HEADS_FIRST,  /* [B, H, N, D] */
    TOKENS_FIRST, /* [B, N, H, D], as projections leave them */
    SCATTERED,    /* column stride 3, padded rows */
    BACKWARDS,    /* negative row stride */
    LAYOUTS
};

enum bias {
    NO_BIAS,
    FULL_BIAS,
    KEY_BIAS,      /* [B, 1, 1, Nk] broadcast */
    QUERY_BIAS,    /* [1, 1, Nq, 1] broadcast */
    HUGE_BIAS,     /* whole rows of -3e38, which masks nothing, and -1e4 on every second key */
    INFINITE_BIAS, /* minus infinity here and there, and in one whole row */
    BIASES
};

enum mask {
    NO_MASK,
    FULL_MASK, /* random, and a row that sees nothing */
    KEY_MASK,  /* [B, 1, 1, Nk] broadcast */
    NO_KEYS,   /* nobody sees anything */
    MASKS
};

struct config {
    int64_t batch, heads, kv_heads, nq, nk, d, dv;
    enum dtype dtype, bias_dtype;
    enum layout layout;
    enum bias bias;
    enum mask mask;
    int band;
    int64_t lo, hi;
    float scale; /* 0: 1 / sqrt(d) */
    int lse, mass, probs;
};

/* A call with its memory. */
struct data {
    struct config config;
    attn_op_call call;
    struct buffer {
        char *base; /* with guard bytes at both ends */
        size_t bytes;
    } buffers[10];
    int n_buffers;
};

/* Normal inputs with 1 % outliers of 8 times, from the seed. */
void data_make(struct data *data, const struct config *config, uint64_t seed);
/* The same values as fp32, heads first, with every output. */
void data_widen(struct data *wide, const struct data *from);
void data_free(struct data *data);
/* Outputs and scratch filled with NaN, then prepare, run, release; guard bytes are looked at. */
attn_status data_run(struct data *data, const struct plugin *plugin, char *text, size_t capacity);

/* Element (i0, i1, i2, i3) as a double. */
double tensor_get(const attn_tensor *t, const int64_t index[4]);
void tensor_set(const attn_tensor *t, const int64_t index[4], double value);

struct distance {
    double relative; /* L2 of the difference over L2 of the expected */
    int wrong;       /* 1 where infinities or NaN differ */
};
struct distance tensor_distance(const attn_tensor *got, const attn_tensor *expected);

/* Deterministic numbers. */
uint64_t random_bits(uint64_t *state);
double random_unit(uint64_t *state);
double random_normal(uint64_t *state);

#endif
