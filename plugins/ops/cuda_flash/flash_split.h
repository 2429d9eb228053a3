/* Where fp32's staged operands lie in scratch: plain C, shared by the launcher and the choice of
 * kernels.
 *
 * K and V (and Q for a second pass) as fp16 parts, [part][B x heads][rows][columns], rows up to a
 * whole tile; what undoes the scale of each row of Q and of each tile of K and V; a mark for each
 * such tile whose keys lie too many magnitudes apart. 4 bytes an element, as the operands
 * themselves.
 */
#ifndef FLASH_SPLIT_H
#define FLASH_SPLIT_H

#include "flash_kernel.h"

#include <stddef.h>

enum { FLASH_SPLIT_TILE = 64 }; /* keys that share a scale; every key tile divides it */

typedef struct flash_split_layout {
    int64_t q_rows, k_rows;           /* of one head, whole tiles */
    size_t k, v, q;                   /* byte offsets of the parts */
    size_t back, q_back, wide, bytes; /* back and wide: of K's tiles, then of V's */
} flash_split_layout;

/* Queries of a block of the second pass, whole tiles: all of them where the keys alone make enough
 * blocks for twice the multiprocessors of an H100, else as many as do. */
static inline int flash_split_queries(const flash_problem *p)
{
    const int64_t blocks =
                      (int64_t)((p->nk + FLASH_SPLIT_TILE - 1) / FLASH_SPLIT_TILE) * p->b * p->h,
                  tiles = (p->nq + FLASH_SPLIT_TILE - 1) / FLASH_SPLIT_TILE,
                  parts = blocks > 0 && blocks < 264 ? (264 + blocks - 1) / blocks : 1,
                  each = (tiles + parts - 1) / parts;
    return (int)(each > 1 ? each : 1) * FLASH_SPLIT_TILE;
}

static inline int flash_split_parts(const flash_problem *p)
{
    const int queries = flash_split_queries(p);
    return (p->nq + queries - 1) / queries;
}

/* The compiled columns of a head dimension: 40 takes steps of 16 columns, like all others. */
static inline int flash_split_columns(int d)
{
    return (d + 15) / 16 * 16;
}

static inline size_t flash_split_take(size_t *bytes, size_t wanted)
{
    const size_t at = *bytes;
    *bytes += (wanted + 255) / 256 * 256;
    return at;
}

static inline flash_split_layout flash_split_lay_out(const flash_problem *p, int columns,
                                                     int second_pass)
{
    flash_split_layout l = {0};
    const size_t tile = FLASH_SPLIT_TILE, part = sizeof(uint16_t),
                 heads = (size_t)p->b * (size_t)p->h, heads_kv = (size_t)p->b * (size_t)p->hkv;
    l.q_rows = (int64_t)(((size_t)p->nq + tile - 1) / tile * tile);
    l.k_rows = (int64_t)(((size_t)p->nk + tile - 1) / tile * tile);
    const size_t q_all = heads * (size_t)l.q_rows, k_all = heads_kv * (size_t)l.k_rows;
    l.k = flash_split_take(&l.bytes, 2 * k_all * (size_t)columns * part);
    l.v = flash_split_take(&l.bytes, 2 * k_all * (size_t)columns * part);
    l.q = flash_split_take(&l.bytes, second_pass ? 2 * q_all * (size_t)columns * part : 0);
    l.back = flash_split_take(&l.bytes, 2 * k_all / tile * sizeof(float));
    l.q_back = flash_split_take(&l.bytes, second_pass ? q_all * sizeof(float) : 0);
    l.wide = flash_split_take(&l.bytes, 2 * k_all / tile * sizeof(int32_t));
    return l;
}

#endif
