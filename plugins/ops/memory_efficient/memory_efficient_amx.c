/* memory_efficient with AMX: fp32 accuracy from bfloat16 tiles.
 *
 * An fp32 number is exactly the sum of three bfloat16 numbers of 8 bits each: x = x0 + x1 + x2, cut
 * off, not rounded.  Of the nine products of two such sums six reach 2^-24 of the result; they are
 * added up in fp32 by the tile unit, which does sixteen times the multiply-adds of the vector unit.
 * fp16 inputs need two parts, bf16 inputs one; see `recipes`.
 *
 *   S = Q K'     A: Q rows, the parts one after another      B: K in pairs of columns
 *   O += P V     A: P rows over the keys                     B: V in pairs of keys
 *
 * Queries are rows here, not lanes as in products.h: A and C are row by row in the tile unit, so a
 * bias is added as it lies, V is packed and O is stored without a transposition.
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
/* Keys in a tile, at most: see tile_keys. */
#define ME_KEYS 256

#include "v8_avx.h"
#include "vec_avx512.h"

#include "columns_avx512.h"

#include "pack.h"
#include "windows.h"

#include "fetch.h"

#include "amx_pack.h"
#include "amx_steps.h"

#include "amx_rows.h"

/* What the pipeline below keeps for two microtiles at a time, in m->room. */
struct room {
    float *packing;             /* 32 columns of 16: see amx_pack.h */
    float *s[2];                /* [ROWS][ME_KEYS] */
    uint16_t *probabilities[2]; /* [query / 16][part][key / 32][16][32] */
    float *alpha[2];            /* [ROWS] */
    float *sums;                /* [ROWS][sums_row] */
    struct step *steps;         /* of scores, then of outputs */
};

static int64_t score_steps(const struct me_problem *p)
{
    return KEY_STEPS * score_plan(p).steps;
}

static int64_t output_steps(const struct me_problem *p)
{
    return me_ceil_div(p->dv, 32) * KEY_STEPS * recipes[p->products].terms;
}

static int64_t room_make(const struct me_problem *p, float *base, struct room *room)
{
    int64_t tiles = ROWS / 16 * KEY_STEPS * recipes[p->products].left_parts;
    int64_t sizes[] = {32 * 16,
                       ME_KEYS * ROWS,
                       ME_KEYS * ROWS,
                       tiles * TILE / 2,
                       tiles * TILE / 2,
                       ROWS,
                       ROWS,
                       ROWS * sums_row(p),
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

/* The window whose bias is to be fetched beside the exponentials of w: the one after the next if
 * the tile unit takes it, else the next.  Past a tile's last come the first of the next tile. */
static struct window window_later(const struct me_problem *p, const struct window *w, int64_t first,
                                  int64_t last)
{
    struct window later = *w;
    later.i0 += window_start(p, w).data ? 2 * ROWS : ROWS;
    if (later.i0 >= last) {
        int64_t past = later.i0 - first - me_round_up(last - first, ROWS);
        later = window_after(p, w, me_min(first + past, last - 1), last);
    }
    later.rows = me_min(ROWS, last - later.i0);
    return later;
}

/* One tile of keys, packed, against queries [first, last): while the exponentials of a microtile
 * are taken, the tile unit computes the scores of the next and the output of the one before. */
static void block_tile(const struct me_problem *p, struct window *w, int64_t first, int64_t last,
                       struct tile_memory *m)
{
    const struct plan plan = score_plan(p);
    struct room room;
    room_make(p, m->room, &room);
    struct step *outputs = steps_scores(&plan, w->keys, room.steps);
    struct step *end = steps_outputs(plan.recipe, p->dv, w->keys, outputs);
    int64_t dv = output_floats(p);
    int64_t current = -1, before = -1; /* -1: none */
    int64_t rows_before = 0;
    struct window next = *w;
    int turn = 0;
    next.i0 = first - ROWS;
    do {
        int more = next_rows(p, &next, last), other = turn ^ 1;
        struct stream stream = {
            .scores = room.steps,
            .outputs = outputs,
            .n_scores = more ? outputs - room.steps : 0,
            .n_outputs = before >= 0 ? end - outputs : 0,
            .queries = (const uint16_t *)(m->qt + (more ? next.i0 - first : 0) * query_floats(p)),
            .keys = (const uint16_t *)m->kp,
            .probabilities = room.probabilities[other],
            .values = (const uint16_t *)m->vp,
            .s = room.s[other],
            .sums = room.sums,
            .sums_row = sums_row(p),
        };
        if (more)
            stream.bias = window_start(p, &next);
        if (current >= 0) {
            struct fetch fetch;
            struct beside beside = {&stream, &fetch};
            struct window later = window_later(p, w, first, last);
            stream_pace(&stream, w->rows * row_weight(w->keys, window_edited(p, w)));
            fetch_window(&fetch, p, &later, w->rows * (1 + me_ceil_div(w->keys, 32)));
            softmax(p, w, room.s[turn], m->max + current, m->sum + current, room.alpha[turn],
                    room.probabilities[turn], &beside);
        }
        stream_finish(&stream);
        if (before >= 0)
            output_add(p, room.sums, room.alpha[other], rows_before, m->ot + before * dv);
        before = current;
        rows_before = w->rows;
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

/* What a window's queries give to each key's mass, while the stream runs. */
static void mass_rows(const struct me_problem *p, const struct window *w, float *s,
                      const float *lse, float *part, struct stream *stream)
{
    int edited = window_edited(p, w);
    vec scale = vec_set1(edited ? 1.0f : scale_after(p)), sum[ME_KEYS / LANES];
    for (int i = 0; i < ME_KEYS / LANES; i++)
        sum[i] = vec_set1(0.0f);
    stream_pace(stream, w->rows * me_ceil_div(w->keys, 4 * LANES));
    for (int64_t r = 0; r < w->rows; r++, s += ME_KEYS) {
        vec norm = vec_set1(lse[r]);
        if (edited)
            row_edit(p, w, r, s);
        UNROLL
        for (int i = 0; i < ME_KEYS / LANES; i++) {
            if (i * LANES >= w->keys)
                break;
            if (i % 4 == 0)
                stream_share(stream, 1);
            sum[i] =
                vec_add(sum[i], vec_exp(_mm512_fmsub_ps(vec_load(s + i * LANES), scale, norm)));
        }
    }
    for (int i = 0; i < ME_KEYS / LANES; i++)
        vec_store(part + i * LANES, vec_add(vec_load(part + i * LANES), sum[i]));
}

static float mass_of(const struct tile_memory *m, int64_t key)
{
    return m->part[key];
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
        if (more)
            stream.bias = window_start(p, &next);
        if (have)
            mass_rows(p, w, room.s[turn], room.alpha[last_lse], m->part + w->j0 - j0, &stream);
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
    .block_rows = 2304,
    .block_bytes = 4 << 20,
    .scratch = tiles_scratch,
    .attend = amx_attend,
    .mass = amx_mass,
    .least_keys = 256,
    .fallback = &memory_efficient_avx512,
};
