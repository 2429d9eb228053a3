#include "flash_select.h"
#include "flash_plain.h"
#include "flash_split.h"

#include <stddef.h>

static int first_holding(const int *dims, int count, int d)
{
    for (int i = 0; i < count; i++)
        if (d <= dims[i])
            return i;
    return -1;
}

static int view_whole(const flash_view *v)
{
    return v->col == 1 && v->row % 8 == 0 && v->head % 8 == 0 && v->batch % 8 == 0;
}

int flash_rows_whole(const flash_problem *p)
{
    return view_whole(&p->q) && view_whole(&p->k) && view_whole(&p->v) && view_whole(&p->out);
}

/* The Hopper kernels know no bias or mask, and only one a band; offsets within a tile fit 32 bits,
 * tensor maps want positive strides. */
static int hopper_takes(const flash_problem *p)
{
    const int64_t most = INT64_C(1) << 22;
    if (p->dtype == FLASH_F32 || p->bias.data || p->mask.data || p->d != p->dv || p->d % 8 != 0 ||
        p->nk == 0 || !(p->scale > 0)) /* the kernels take the maximum before the scale */
        return 0;
    if (p->q.row > most || p->k.row <= 0 || p->k.row > most || p->v.row <= 0 || p->v.row > most)
        return 0;
    return p->k.head >= 0 && p->k.batch >= 0 && p->v.head >= 0 && p->v.batch >= 0 &&
           flash_rows_whole(p);
}

static int short_set(const flash_problem *p)
{
    if (p->key_mass.data)
        return p->nk <= 64 ? FLASH_SHORT_MASS_64 : p->nk <= 256 ? FLASH_SHORT_MASS_256 : -1;
    return p->nk <= 64    ? FLASH_SHORT_64
           : p->nk <= 80  ? FLASH_SHORT_80
           : p->nk <= 128 ? FLASH_SHORT_128
           : p->nk <= 256 ? FLASH_SHORT_256
                          : -1;
}

/* Where key_mass is wanted of few keys and the work is small (1024 x 77, D 80, at B2 H8 is): else
 * tensor cores are faster, though they take four kernels. */
static int plain_takes(const flash_problem *p, int hopper)
{
    const int wide = p->d > p->dv ? p->d : p->dv;
    const int64_t scores = (int64_t)p->b * p->h * p->nq * p->nk;
    return p->key_mass.data && p->nk > 0 && p->nk <= FLASH_PLAIN_KEYS &&
           p->dv <= 64 * FLASH_PLAIN_PASSES && scores <= (INT64_C(1) << 27) / wide &&
           !p->bias.data && !p->mask.data && !p->band && !p->probs.data && p->q.col == 1 &&
           p->k.col == 1 && p->v.col == 1 && p->out.col == 1 &&
           flash_plain_smem(p, flash_plain_rows(p)) <=
               (size_t)(hopper ? FLASH_HOPPER_SMEM : FLASH_LEAST_SMEM);
}

static void choose_f32(const flash_problem *p, int hopper, flash_choice *c)
{
    static const int dims[] = FLASH_LONG_DIMS;
    if (plain_takes(p, hopper)) {
        const int rows = flash_plain_rows(p);
        c->family = FLASH_PLAIN;
        c->index = (rows == 16   ? 0
                    : rows == 32 ? 1
                                 : 2) *
                       FLASH_PLAIN_PASSES +
                   (p->dv + 63) / 64 - 1;
    } else {
        c->family = FLASH_SPLIT;
        c->index = first_holding(dims, FLASH_SPLIT_COUNT, p->d > p->dv ? p->d : p->dv);
    }
}

flash_choice flash_select(const flash_problem *p, int hopper, int aligned)
{
    static const int long_dims[] = FLASH_LONG_DIMS, short_dims[] = FLASH_SHORT_DIMS,
                     generic_dims[] = {64, 128, 256, 512};
    flash_choice c = {.family = FLASH_NOTHING, .index = -1, .set = -1, .mass = -1};
    const uint64_t rows = (uint64_t)p->b * (uint64_t)p->h * (uint64_t)p->nq;
    const int wide = p->d > p->dv ? p->d : p->dv;
    if (rows == 0)
        return c;
    if (hopper && aligned && hopper_takes(p)) {
        const int s = first_holding(short_dims, FLASH_SHORT_COUNT, p->d), set = short_set(p);
        if (p->band) {
            c.family = s >= 0 ? FLASH_BAND : FLASH_NOTHING;
            c.index = s;
        } else if (s >= 0 && set >= 0 && !p->probs.data) {
            c.family = FLASH_SHORT;
            c.index = s;
            c.set = set;
        } else if (first_holding(long_dims, FLASH_LONG_COUNT, p->d) >= 0) {
            c.family = FLASH_LONG;
            c.index = first_holding(long_dims, FLASH_LONG_COUNT, p->d);
        }
    }
    if (p->dtype == FLASH_F32) {
        choose_f32(p, hopper, &c);
    } else if (c.family == FLASH_NOTHING) {
        c.family = FLASH_GENERIC;
        c.index = first_holding(generic_dims, FLASH_GENERIC_COUNT, wide);
    }
    const int one_pass = c.family == FLASH_SHORT || c.family == FLASH_PLAIN,
              block_rows = c.family == FLASH_PLAIN ? flash_plain_rows(p) : 64;
    c.second_pass = p->nk > 0 && !one_pass && (p->key_mass.data || p->probs.data);
    if (p->key_mass.data && p->nk > 0) {
        /* a cluster of one block is none */
        c.clustered = c.family == FLASH_SHORT && p->nq <= 64 && p->h > 1 && p->h <= 8;
        c.mass_parts = c.clustered               ? 0
                       : one_pass                ? (p->nq + block_rows - 1) / block_rows
                       : c.family == FLASH_SPLIT ? flash_split_parts(p)
                                                 : 1;
        c.mass_bytes = (uint64_t)p->b * (uint64_t)p->h * (uint64_t)c.mass_parts * (uint64_t)p->nk *
                       sizeof(float);
    }
    if (c.second_pass && c.family == FLASH_LONG && !p->probs.data && p->h == p->hkv &&
        p->q.row > 0 && p->q.head >= 0 && p->q.batch >= 0)
        c.mass = first_holding(short_dims, FLASH_MASS_COUNT, p->d); /* the same sizes */
    if (c.second_pass && c.family == FLASH_SPLIT)
        c.mass = c.index; /* it reads what was staged for the first */
    if (c.second_pass && p->dtype == FLASH_F32)
        c.lse_bytes = (rows * 2 * sizeof(float) + 255) / 256 * 256;
    else if (c.second_pass && !p->lse.data)
        c.lse_bytes = (rows * sizeof(float) + 255) / 256 * 256;
    if (c.family == FLASH_SPLIT)
        c.staged_bytes =
            (255 - (c.mass_bytes + 255) % 256) +
            flash_split_lay_out(p, flash_split_columns(long_dims[c.index]), c.second_pass).bytes;
    return c;
}

uint64_t flash_scratch(const flash_problem *p, int hopper)
{
    const flash_choice fast = flash_select(p, hopper, 1), slow = flash_select(p, hopper, 0);
    const uint64_t a = fast.lse_bytes + fast.mass_bytes + fast.staged_bytes,
                   b = slow.lse_bytes + slow.mass_bytes + slow.staged_bytes;
    return a > b ? a : b;
}

static int64_t waves(const flash_problem *p, int sms, int rows)
{
    const int64_t tiles = (int64_t)((p->nq + rows - 1) / rows) * p->b * p->h;
    return (tiles + sms - 1) / sms;
}

/* A wave of 192 rows takes 1.47 times one of 128 (47.3 and 32.3 us for 4096 keys on an H100). */
int flash_tall(const flash_problem *p, int sms)
{
    return waves(p, sms, 192) * 147 < waves(p, sms, 128) * 100;
}

int flash_pair(const flash_problem *p, int sms)
{
    return sms > 1 && waves(p, sms / 2, 64) == 1;
}
