/* memory_efficient with AMX: fp32 accuracy from bfloat16 tiles.
 *
 * An fp32 number is exactly the sum of three bfloat16 numbers of 8 bits each: x = x0 + x1 + x2, cut
 * off, not rounded.  Of the nine products of two such sums six reach 2^-24 of the result; they are
 * added up in fp32 by the tile unit, which does sixteen times the multiply-adds of the vector unit.
 * fp16 inputs need two parts, bf16 inputs one; see `recipes`.
 *
 *   S = K Q'     A: K rows, the parts one after another      B: Q' in pairs of columns
 *   O' += V' P   A: V' rows (columns of V) over the keys     B: P in pairs of keys
 *
 * The tile unit takes subnormal numbers as zero and makes infinity minus infinity of an infinite
 * input's parts, so a task whose inputs are not finite is refused and goes to the AVX-512 kernels.
 */
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "memory_efficient.h"

#define LANES 16
#define NV    2
#define ROWS  (NV * LANES)

#include "v8_avx.h"
#include "vec_avx512.h"

#include "columns_avx512.h"

#include "pack.h"
#include "vectors.h"
#include "windows.h"

#include "fetch.h"

#include "amx_pack.h"
#include "amx_steps.h"

/* What the pipeline below keeps for two microtiles at a time, in m->room. */
struct room {
    float *queries;             /* [columns][16]: Q' before it is split */
    float *s[2];                /* [ME_KEYS][ROWS] */
    uint16_t *probabilities[2]; /* [query / 16][part][key / 32][16][32] */
    float *alpha[2];            /* [ROWS] */
    float *sums;                /* [columns of V, rounded up][ROWS] */
    struct step *steps;         /* of scores, then of outputs */
};

static int64_t score_steps(const struct me_problem *p)
{
    return ME_KEYS / 32 * score_plan(p).steps;
}

static int64_t output_steps(const struct me_problem *p)
{
    return me_ceil_div(p->dv, 32) * KEY_STEPS * output_recipes[p->products].terms;
}

static int64_t room_make(const struct me_problem *p, float *base, struct room *room)
{
    int64_t pair = ME_KEYS * ROWS * output_recipes[p->products].right_parts / 2;
    int64_t sizes[] = {(me_min(p->d, MAX_DIM) + 8) * LANES,
                       ME_KEYS * ROWS,
                       ME_KEYS * ROWS,
                       pair,
                       pair,
                       ROWS,
                       ROWS,
                       me_round_up(p->dv, 32) * ROWS,
                       (score_steps(p) + output_steps(p)) * (int64_t)sizeof(struct step) / 4};
    float *at[9];
    int64_t used = 0;
    for (int i = 0; i < 9; i++) {
        at[i] = base ? base + used : NULL;
        used += me_round_up(sizes[i], 16);
    }
    *room = (struct room){at[0],          {at[1], at[2]}, {(uint16_t *)at[3], (uint16_t *)at[4]},
                          {at[5], at[6]}, at[7],          (struct step *)at[8]};
    return used;
}

static int64_t room_floats(const struct me_problem *p)
{
    struct room room;
    return room_make(p, NULL, &room);
}

/* ---- the vector unit's part ---- */

/* What sixteen keys of a window take beside a pair of keys' exponentials: to find the largest score,
 * and with a bias or a mask. */
enum { TOP_WEIGHT = 2, EDIT_WEIGHT = 5 };

/* P of two keys and sixteen queries, into [part][key / 32][key / 2 % 16][query][2]. */
static ALWAYS_INLINE void store_pair(vec a, vec b, uint16_t *at, int parts)
{
    __m512i part[3];
    if (parts == 1) {
        /* Rounded to nearest even; P has no NaN that the sum of the row does not have too. */
        const __m512i half = _mm512_set1_epi32(0x7fff), one = _mm512_set1_epi32(1);
        __m512i x = _mm512_castps_si512(a), y = _mm512_castps_si512(b);
        x = _mm512_add_epi32(
            x, _mm512_add_epi32(half, _mm512_and_si512(_mm512_srli_epi32(x, 16), one)));
        y = _mm512_add_epi32(
            y, _mm512_add_epi32(half, _mm512_and_si512(_mm512_srli_epi32(y, 16), one)));
        _mm512_storeu_si512(at, pair_upper(_mm512_castsi512_ps(x), _mm512_castsi512_ps(y)));
        return;
    }
    split_pair(a, b, part, parts);
    UNROLL
    for (int i = 0; i < parts; i++)
        _mm512_storeu_si512(at + i * KEY_STEPS * TILE, part[i]);
}

/* Bias, mask and band upon S, and the largest score of each query, while the stream runs. */
static void scores_top(const struct me_problem *p, const struct window *w, float *s, vec top[NV],
                       struct stream *stream, struct fetch *fetch)
{
    int weight = p->bias.data || p->mask.data ? EDIT_WEIGHT : TOP_WEIGHT;
    struct window part = *w;
    for (int64_t j = 0; j < w->keys; j += LANES, part.j0 += LANES, s += LANES * ROWS) {
        part.keys = me_min(LANES, w->keys - j);
        stream_share(stream, weight);
        fetch_share(fetch);
        window_edit(p, &part, s);
        for (int64_t i = 0; i < part.keys; i++)
            for (int v = 0; v < NV; v++)
                top[v] = vec_max(vec_load(s + i * ROWS + v * LANES), top[v]);
    }
}

/* S of a microtile becomes P, while the stream runs; top is the new maximum. */
static ALWAYS_INLINE void softmax_split(const float *s, int64_t keys, const vec top[NV],
                                        vec total[NV], uint16_t *probabilities, int parts,
                                        struct stream *stream, struct fetch *fetch)
{
    int64_t pairs = me_round_up(keys, 32) / 2;
    for (int64_t j = 0; j < pairs; j++) {
        stream_share(stream, 1);
        fetch_share(fetch);
        UNROLL
        for (int v = 0; v < NV; v++) {
            const float *at = s + 2 * j * ROWS + v * LANES;
            vec a = vec_set1(0.0f), b = a;
            if (2 * j < keys)
                a = vec_exp(vec_sub(vec_load(at), top[v]));
            if (2 * j + 1 < keys)
                b = vec_exp(vec_sub(vec_load(at + ROWS), top[v]));
            total[v] = vec_add(total[v], vec_add(a, b));
            store_pair(a, b, probabilities + v * parts * KEY_STEPS * TILE + j * 32, parts);
        }
    }
}

/* S of a window becomes P; max, sum and alpha, the factor for what was summed before, follow. */
static void softmax(const struct me_problem *p, const struct window *w, float *s, float *max,
                    float *sum, float *alpha, uint16_t *probabilities, struct stream *stream,
                    struct fetch *fetch)
{
    int parts = output_recipes[p->products].right_parts;
    vec top[NV], total[NV];
    for (int v = 0; v < NV; v++) {
        top[v] = vec_load(max + v * LANES);
        total[v] = vec_set1(0.0f);
    }
    scores_top(p, w, s, top, stream, fetch);
    for (int v = 0; v < NV; v++) {
        vec old = vec_load(max + v * LANES);
        vec_store(max + v * LANES, top[v]);
        top[v] = vec_shield(top[v]);
        vec_store(alpha + v * LANES, vec_exp(vec_sub(old, top[v])));
    }
    if (parts == 3)
        softmax_split(s, w->keys, top, total, probabilities, 3, stream, fetch);
    else if (parts == 2)
        softmax_split(s, w->keys, top, total, probabilities, 2, stream, fetch);
    else
        softmax_split(s, w->keys, top, total, probabilities, 1, stream, fetch);
    for (int v = 0; v < NV; v++) {
        float *at = sum + v * LANES;
        vec_store(at, vec_fma(vec_load(at), vec_load(alpha + v * LANES), total[v]));
    }
}

/* Pieces into which softmax cuts the stream's work, and those into which it cuts what it fetches. */
static int64_t softmax_weight(const struct me_problem *p, int64_t keys)
{
    int weight = p->bias.data || p->mask.data ? EDIT_WEIGHT : TOP_WEIGHT;
    return me_round_up(keys, 32) / 2 + me_ceil_div(keys, LANES) * weight;
}

static int64_t softmax_pieces(int64_t keys)
{
    return me_round_up(keys, 32) / 2 + me_ceil_div(keys, LANES);
}

/* ot = ot * alpha + sums; the sums of a last single row of tiles are in two places. */
static void output_add(const float *sums, const float *alpha, int64_t dv, float *ot)
{
    int64_t pairs = dv - dv % 32 + (dv % 32 > 16 ? dv % 32 : 0);
    vec a[NV];
    for (int v = 0; v < NV; v++)
        a[v] = vec_load(alpha + v * LANES);
    for (int64_t c = 0; c < dv; c++)
        for (int v = 0; v < NV; v++) {
            const float *from = sums + c * ROWS + v * LANES;
            float *at = ot + c * ROWS + v * LANES;
            vec sum = vec_load(from);
            if (c >= pairs)
                sum = vec_add(sum, vec_load(from + 16 * ROWS));
            vec_store(at, vec_fma(vec_load(at), a[v], sum));
        }
}

/* Steps to the next microtile that the tile of keys meets; 0 after the last. */
static int next_rows(const struct me_problem *p, struct window *w, int64_t last)
{
    for (w->i0 += ROWS; w->i0 < last; w->i0 += ROWS) {
        w->rows = me_min(ROWS, last - w->i0);
        if (!window_hidden(p, w))
            return 1;
    }
    return 0;
}

/* One tile of keys, packed, against queries [first, last): while the exponentials of a microtile
 * are taken, the tile unit computes the scores of the next and the output of the one before. */
static void block_tile(const struct me_problem *p, struct window *w, int64_t first, int64_t last,
                       struct tile_memory *m)
{
    const struct plan plan = score_plan(p);
    const struct recipe *recipe = &output_recipes[p->products];
    struct room room;
    room_make(p, m->room, &room);
    struct step *outputs = steps_scores(&plan, w->keys, room.steps);
    struct step *end = steps_outputs(recipe, p->dv, w->keys, outputs);
    int64_t dv = me_round_up(p->dv, ME_GROUP), current = -1, before = -1; /* -1: none */
    struct window next = *w, after = *w; /* after: the first of the next tile */
    struct fetch fetch;
    int turn = 0;
    next.i0 = first - ROWS;
    after.i0 = first;
    after.rows = me_min(ROWS, last - first);
    after.j0 += ME_KEYS;
    after.keys = me_max(0, me_min(ME_KEYS, p->nk - after.j0));
    do {
        int more = next_rows(p, &next, last), other = turn ^ 1;
        struct stream stream = {
            .scores = room.steps,
            .outputs = outputs,
            .n_scores = more ? outputs - room.steps : 0,
            .n_outputs = before >= 0 ? end - outputs : 0,
            .keys = (const uint16_t *)m->kp,
            .queries = (const uint16_t *)(m->qt + (more ? next.i0 - first : 0) * query_floats(p)),
            .values = (const uint16_t *)m->vp,
            .probabilities = room.probabilities[other],
            .s = room.s[other],
            .sums = room.sums,
        };
        if (current >= 0) {
            stream_pace(&stream, softmax_weight(p, w->keys));
            fetch_window(&fetch, p, more ? &next : &after, softmax_pieces(w->keys));
            softmax(p, w, room.s[turn], m->max + current, m->sum + current, room.alpha[turn],
                    room.probabilities[turn], &stream, &fetch);
        }
        stream_finish(&stream);
        if (before >= 0)
            output_add(room.sums, room.alpha[other], dv, m->ot + before * dv);
        before = current;
        current = more ? next.i0 - first : -1;
        *w = next;
        turn = other;
    } while (current >= 0 || before >= 0);
}

/* Steps to the next window of a key-mass task; 0 after the last. */
static int next_window(const struct me_problem *p, struct window *w, int64_t j0, int64_t keys)
{
    do {
        w->j0 += ME_KEYS;
        if (w->j0 >= j0 + keys) {
            w->j0 = j0;
            w->i0 += ROWS;
        }
        w->rows = me_min(ROWS, p->nq - w->i0);
        w->keys = me_min(ME_KEYS, j0 + keys - w->j0);
    } while (w->i0 < p->nq && window_hidden(p, w));
    return w->i0 < p->nq;
}

/* As mass_tile of vectors.h, while the stream runs. */
static void mass_stream(const float *s, int64_t keys, const float *lse, float *part,
                        struct stream *stream)
{
    vec first = vec_load(lse), second = vec_load(lse + LANES);
    stream_pace(stream, keys);
    for (int64_t j = 0; j < keys; j++, s += ROWS, part += LANES) {
        stream_share(stream, 1);
        vec sum = vec_add(vec_load(part), vec_exp(vec_sub(vec_load(s), first)));
        vec_store(part, vec_add(sum, vec_exp(vec_sub(vec_load(s + LANES), second))));
    }
}

/* All queries of a head against packed keys from j0, the scores of a window computed while the
 * exponentials of the one before are added up. */
static void mass_windows(const struct me_problem *p, struct window *w, int64_t j0, int64_t keys,
                         struct tile_memory *m)
{
    const struct plan plan = score_plan(p);
    struct room room;
    struct window next = *w;
    struct step *end = room_make(p, m->room, &room) ? room.steps : NULL;
    int64_t loaded = -1, built = -1;
    int have = 0, turn = 0, lse = 0;
    next.i0 = -ROWS;
    next.j0 = j0 + keys;
    do {
        int more = next_window(p, &next, j0, keys), last_lse = lse;
        if (more && next.i0 != loaded) {
            lse ^= 1;
            load_lse(p, &next, room.alpha[lse]);
            pack_queries(p, m, me_head(&p->q, next.b, next.h, next.i0), next.rows, m->qt);
            loaded = next.i0;
        }
        if (more && next.keys != built) {
            end = steps_scores(&plan, next.keys, room.steps);
            built = next.keys;
        }
        struct stream stream = {
            .scores = room.steps,
            .n_scores = more ? end - room.steps : 0,
            .keys = (const uint16_t *)(m->kp + (more ? next.j0 - j0 : 0) * key_floats(p)),
            .queries = (const uint16_t *)m->qt,
            .s = room.s[turn ^ 1],
        };
        if (have) {
            window_edit(p, w, room.s[turn]);
            mass_stream(room.s[turn], w->keys, room.alpha[last_lse], m->part + (w->j0 - j0) * LANES,
                        &stream);
        }
        stream_finish(&stream);
        *w = next;
        have = more;
        turn ^= 1;
    } while (have && !m->refused);
}

#include "tiles.h"

/* ---- the tile unit ---- */

/* Eight tiles of 16 rows of 64 bytes. */
static void tiles_configure(void)
{
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t columns[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.columns[i] = 64;
        config.rows[i] = 16;
    }
    /* The compiler does not know that the instruction reads the structure. */
    __asm__ volatile("" : : "r"(&config) : "memory");
    _tile_loadconfig(&config);
}

static int amx_attend(const struct me_problem *p, int64_t task, void *scratch)
{
    if (p->d == 0 || p->d > MAX_DIM)
        return 0;
    tiles_configure();
    int done = tiles_attend(p, task, scratch);
    _tile_release();
    return done;
}

static int amx_mass(const struct me_problem *p, int64_t task, void *scratch)
{
    if (p->d == 0 || p->d > MAX_DIM)
        return 0;
    tiles_configure();
    int done = tiles_mass(p, task, scratch);
    _tile_release();
    return done;
}

/* Linux grants the tiles' registers to a process that asks (Documentation/arch/x86/xstate.rst). */
static int kernels_usable(void)
{
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    unsigned a, b, c, d;
    enum { AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24 };
    if (!memory_efficient_avx512.usable() || !__builtin_cpu_supports("avx512bf16"))
        return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & AMX_BF16) || !(d & AMX_TILE))
        return 0;
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

const struct me_kernels memory_efficient_amx = {
    .name = "amx",
    .usable = kernels_usable,
    /* A multiple of the fallback's too. */
    .rows = 96,
    .block_rows = 768,
    .block_bytes = 4 << 20,
    .scratch = tiles_scratch,
    .attend = amx_attend,
    .mass = amx_mass,
    .least_keys = 256,
    .fallback = &memory_efficient_avx512,
};
