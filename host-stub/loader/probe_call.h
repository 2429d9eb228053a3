/* probe_call.h: small attentions with which a probe tries an op, and what must come out. */
#ifndef ATTNPLUG_LOADER_PROBE_CALL_H
#define ATTNPLUG_LOADER_PROBE_CALL_H

#include "attn_abi.h"

#include <stdbool.h>

/* Odd and even sizes, so that tails and whole blocks of a kernel both run. */
enum { PROBE_BATCH = 2, PROBE_HEADS = 3, PROBE_QUERIES = 33, PROBE_KEYS = 77, PROBE_DIM = 40 };

typedef struct {
    float q[PROBE_BATCH * PROBE_HEADS * PROBE_QUERIES * PROBE_DIM];
    float k[PROBE_BATCH * PROBE_HEADS * PROBE_KEYS * PROBE_DIM];
    float v[PROBE_BATCH * PROBE_HEADS * PROBE_KEYS * PROBE_DIM];
    float out[PROBE_BATCH * PROBE_HEADS * PROBE_QUERIES * PROBE_DIM];
    float lse[PROBE_BATCH * PROBE_HEADS * PROBE_QUERIES];
    float key_mass[PROBE_BATCH * PROBE_KEYS];
    uint8_t mask[PROBE_BATCH * PROBE_HEADS * PROBE_QUERIES * PROBE_KEYS];
    attn_op_call call;
} probe_call;

/* The call of that number, its outputs poisoned; false past the last. */
bool probe_call_make(int number, probe_call *c);

/* Whether out, lse and key_mass are right; an approximate op may be further off. */
bool probe_call_right(const probe_call *c, bool approximate, attn_error *err);

#endif
