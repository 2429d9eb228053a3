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

#include "pack.h"
#include "vectors.h"
#include "windows.h"

#define TILE      512 /* bfloat16 numbers in a tile: 16 rows of 32 */
#define TERMS     6
#define MAX_DIM   512
#define MAX_STEPS (TERMS * MAX_DIM / 32)
#define KEY_STEPS (ME_KEYS / 32)

/* Which parts of the left and right numbers are multiplied, largest first. */
struct recipe {
    int left_parts, right_parts, terms;
    uint8_t left[TERMS], right[TERMS];
};

/* Scores: keys left, scaled queries right. */
static const struct recipe score_recipes[] = {
    [ME_F32] = {3, 3, 6, {0, 0, 0, 1, 1, 2}, {0, 1, 2, 0, 1, 0}},
    [ME_F16] = {2, 2, 3, {0, 0, 1}, {0, 1, 0}},
    [ME_BF16] = {1, 2, 2, {0, 0}, {0, 1}},
};
/* Outputs: values left, probabilities right. A single part of P is rounded, not cut off. */
static const struct recipe output_recipes[] = {
    [ME_F32] = {3, 3, 6, {0, 0, 0, 1, 1, 2}, {0, 1, 2, 0, 1, 0}},
    [ME_F16] = {2, 2, 3, {0, 0, 1}, {0, 1, 0}},
    [ME_BF16] = {1, 1, 1, {0}, {0}},
};

/* How the columns of a row lie in tiles of 32: for each part its whole tiles, then, of the columns
 * that are left over, a section for each term, one after another.  Only the end of the last tile is
 * padding: 40 columns take 8 steps for six terms, where two padded tiles would take 12. */
struct plan {
    const struct recipe *recipe;
    int64_t whole; /* whole tiles of a part */
    int64_t over;  /* columns left over, a multiple of 8 */
    int64_t over_tiles;
    int64_t left_tiles, right_tiles, steps;
};

static struct plan plan_make(const struct recipe *recipe, int64_t d)
{
    struct plan plan = {.recipe = recipe, .whole = d / 32, .over = me_round_up(d % 32, 8)};
    plan.over_tiles = me_ceil_div(recipe->terms * plan.over, 32);
    plan.left_tiles = recipe->left_parts * plan.whole + plan.over_tiles;
    plan.right_tiles = recipe->right_parts * plan.whole + plan.over_tiles;
    plan.steps = recipe->terms * plan.whole + plan.over_tiles;
    return plan;
}

static struct plan score_plan(const struct me_problem *p)
{
    return plan_make(&score_recipes[p->products], me_min(p->d, MAX_DIM));
}

static int64_t query_floats(const struct me_problem *p)
{
    return score_plan(p).right_tiles * 16;
}

static int64_t key_floats(const struct me_problem *p)
{
    return score_plan(p).left_tiles * 16;
}

static int64_t value_floats(const struct me_problem *p)
{
    return output_recipes[p->products].left_parts * me_round_up(p->dv, 32) / 2;
}

/* What the pipeline below keeps for two microtiles at a time, in m->room. */
struct room {
    float *queries;             /* [columns][16]: Q' before it is split */
    float *s[2];                /* [ME_KEYS][ROWS] */
    uint16_t *probabilities[2]; /* [query / 16][part][key / 32][16][32] */
    float *alpha[2];            /* [ROWS] */
    float *sums;                /* [columns of V, rounded up][ROWS] */
    struct step *steps;         /* of scores, then of outputs */
};

/* One step of two rows of tiles by two columns of tiles; offsets in bfloat16 numbers. */
struct step {
    int32_t left, left2; /* left2 < 0: one row of tiles */
    int32_t right, right2;
    int32_t out;   /* in floats; where the sums go after the last step, else -1 */
    int32_t first; /* sums start at zero */
    int32_t same;  /* the left tiles are those of the step before */
    int32_t odd;   /* one row of tiles: sums in the second pair of tiles, for every second step, so
                      that four sums run side by side; they lie 16 rows further on */
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

/* ---- parts ---- */

/* The upper halves of eight floats. */
static inline __m128i upper8(__m256i bits)
{
    return _mm256_cvtepi32_epi16(_mm256_srli_epi32(bits, 16));
}

/* Eight floats as three parts; `largest` collects magnitudes. */
static inline void split8(v8 x, __m128i part[3], __m256i *largest)
{
    const __m256i high = _mm256_set1_epi32((int)0xffff0000);
    __m256i bits = _mm256_castps_si256(x);
    *largest = _mm256_max_epu32(*largest, _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff)));
    part[0] = upper8(bits);
    x = _mm256_sub_ps(x, _mm256_castsi256_ps(_mm256_and_si256(bits, high)));
    bits = _mm256_castps_si256(x);
    part[1] = upper8(bits);
    x = _mm256_sub_ps(x, _mm256_castsi256_ps(_mm256_and_si256(bits, high)));
    part[2] = upper8(_mm256_castps_si256(x));
}

static int any_not_finite(__m256i largest)
{
    __m256i bad = _mm256_cmpgt_epi32(largest, _mm256_set1_epi32(0x7f7fffff));
    return !_mm256_testz_si256(bad, bad);
}

/* Two rows of sixteen as pairs, the first in the low half: their upper halves, then the rest. */
static inline __m512i pair_upper(vec a, vec b)
{
    return _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(_mm512_castps_si512(a), 16),
                                   _mm512_castps_si512(b));
}

static inline vec rest(vec x)
{
    __m512i high = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32((int)0xffff0000));
    return _mm512_sub_ps(x, _mm512_castsi512_ps(high));
}

static ALWAYS_INLINE void split_pair(vec a, vec b, __m512i part[3], int parts)
{
    part[0] = pair_upper(a, b);
    if (parts > 1) {
        a = rest(a);
        b = rest(b);
        part[1] = pair_upper(a, b);
    }
    if (parts > 2)
        part[2] = pair_upper(rest(a), rest(b));
}

/* Eight adjacent elements of a row, zero past its end. */
static inline v8 row_load8(const struct me_matrix *m, int64_t row, int64_t col, int64_t cols)
{
    const char *at = m->data + row * m->row + col * m->col;
    float x[8] = {0.0f};
    if (col + 8 <= cols && m->col == me_type_size(m->type))
        return m->type == ME_F32   ? v8_load(at, ME_F32)
               : m->type == ME_F16 ? v8_load(at, ME_F16)
                                   : v8_load(at, ME_BF16);
    for (int64_t i = 0; i < 8 && col + i < cols; i++)
        x[i] = element_load(at + i * m->col, m->type);
    return _mm256_loadu_ps(x);
}

/* ---- packing ---- */

/* Where the eight columns from c of a part, or of a term's section, go: in bfloat16 numbers from
 * the row's place in its first tile, if a row of a tile is 32 numbers of `unit` bytes' worth apart.
 */
static inline int64_t place(const struct plan *plan, int parts, int part_or_term, int64_t c)
{
    if (c < plan->whole * 32)
        return (part_or_term * plan->whole + c / 32) * 32 + c % 32;
    return parts * plan->whole * 32 + part_or_term * plan->over + c - plan->whole * 32;
}

/* [key / 16][tile][key % 16][32]; rows up to the next multiple of 16 are zero. */
static void pack_keys(const struct me_problem *p, struct tile_memory *m, struct me_matrix k,
                      int64_t keys, float *kp)
{
    const struct plan plan = score_plan(p);
    const struct recipe *recipe = plan.recipe;
    int64_t columns = plan.whole * 32 + plan.over;
    __m256i largest = _mm256_setzero_si256();
    for (int64_t j = 0; j < me_round_up(keys, 16); j++) {
        uint16_t *group = (uint16_t *)kp + j / 16 * plan.left_tiles * TILE + j % 16 * 32;
        for (int64_t c = recipe->left_parts * plan.whole * 32 + recipe->terms * plan.over;
             c < plan.left_tiles * 32; c += 8)
            _mm_storeu_si128((__m128i *)(group + c / 32 * TILE + c % 32), _mm_setzero_si128());
        for (int64_t c = 0; c < columns; c += 8) {
            __m128i part[3];
            v8 x = j < keys ? row_load8(&k, j, c, p->d) : _mm256_setzero_ps();
            int whole = c < plan.whole * 32, n = whole ? recipe->left_parts : recipe->terms;
            split8(x, part, &largest);
            for (int i = 0; i < n; i++) {
                int64_t at = place(&plan, recipe->left_parts, i, c);
                _mm_storeu_si128((__m128i *)(group + at / 32 * TILE + at % 32),
                                 part[whole ? i : recipe->left[i]]);
            }
        }
    }
    m->refused |= any_not_finite(largest);
}

/* [query / 16][tile][column / 2 % 16][query % 16][2] */
static void pack_queries(const struct me_problem *p, struct tile_memory *m, struct me_matrix q,
                         int64_t rows, float *qt)
{
    const struct plan plan = score_plan(p);
    const struct recipe *recipe = plan.recipe;
    int64_t columns = plan.whole * 32 + plan.over;
    vec largest = vec_set1(0.0f);
    for (int64_t r = 0; r < ROWS; r += LANES) {
        uint16_t *group = (uint16_t *)qt + r / LANES * plan.right_tiles * TILE;
        memset(m->room, 0, (size_t)(columns * LANES) * sizeof(float));
        if (r < rows)
            transpose(m->room, LANES, me_at(q, r, 0), me_min(LANES, rows - r), p->d, p->scale);
        for (int64_t c = recipe->right_parts * plan.whole * 32 + recipe->terms * plan.over;
             c < plan.right_tiles * 32; c += 2)
            _mm512_storeu_si512(group + c * 16, _mm512_setzero_si512());
        for (int64_t c = 0; c < columns; c += 2) {
            __m512i part[3];
            vec a = vec_load(m->room + c * LANES), b = vec_load(m->room + (c + 1) * LANES);
            int whole = c < plan.whole * 32, n = whole ? recipe->right_parts : recipe->terms;
            largest = _mm512_range_ps(largest, a, 0xb); /* of the larger magnitude, made positive */
            largest = _mm512_range_ps(largest, b, 0xb);
            split_pair(a, b, part, 3);
            for (int i = 0; i < n; i++)
                _mm512_storeu_si512(group + place(&plan, recipe->right_parts, i, c) * 16,
                                    part[whole ? i : recipe->right[i]]);
        }
    }
    m->refused |= _mm512_cmp_ps_mask(largest, vec_set1(__FLT_MAX__), _CMP_NLE_UQ) != 0;
}

/* [column / 16][part][key / 32][column % 16][key % 32]; keys up to the next multiple of 32 and
 * columns up to the next multiple of 16 are zero. */
static void pack_values(const struct me_problem *p, struct tile_memory *m, struct me_matrix v,
                        int64_t keys)
{
    int parts = output_recipes[p->products].left_parts;
    __m256i largest = _mm256_setzero_si256();
    for (int64_t c = 0; c < me_round_up(p->dv, 16); c += 8)
        for (int64_t j = 0; j < me_round_up(keys, 32); j += 8) {
            v8 x[8];
            UNROLL
            for (int i = 0; i < 8; i++)
                x[i] = j + i < keys && c < p->dv ? row_load8(&v, j + i, c, p->dv)
                                                 : _mm256_setzero_ps();
            v8_transpose(x);
            UNROLL
            for (int i = 0; i < 8; i++) {
                __m128i part[3];
                uint16_t *at = (uint16_t *)m->vp + (c / 16 * parts * KEY_STEPS + j / 32) * TILE +
                               (c % 16 + i) * 32 + j % 32;
                split8(x[i], part, &largest);
                for (int s = 0; s < parts; s++)
                    _mm_storeu_si128((__m128i *)(at + s * KEY_STEPS * TILE), part[s]);
            }
        }
    m->refused |= any_not_finite(largest);
}

/* ---- steps of the tile unit ---- */

/* Steps of a pair of rows of tiles, whose left parts lie `stride` apart, are written at `at`. */
static struct step *steps_scores(const struct plan *plan, int64_t keys, struct step *at)
{
    const struct recipe *recipe = plan->recipe;
    for (int64_t j = 0; j < keys; j += 32) {
        int32_t row = (int32_t)(j / 16 * plan->left_tiles), before = -1;
        for (int64_t i = 0; i < plan->steps; i++, at++) {
            int64_t t = i % recipe->terms, c = i / recipe->terms;
            int64_t left = recipe->left[t] * plan->whole + c;
            int64_t right = recipe->right[t] * plan->whole + c;
            if (c >= plan->whole) {
                int64_t over = i - recipe->terms * plan->whole;
                left = recipe->left_parts * plan->whole + over;
                right = recipe->right_parts * plan->whole + over;
            }
            at->left = (row + (int32_t)left) * TILE;
            at->left2 = keys - j > 16 ? at->left + (int32_t)plan->left_tiles * TILE : -1;
            at->right = (int32_t)right * TILE;
            at->right2 = at->right + (int32_t)plan->right_tiles * TILE;
            at->first = i == 0;
            at->same = at->left == before;
            at->odd = 0;
            at->out = i == plan->steps - 1 ? (int32_t)(j * ROWS) : -1;
            before = at->left;
        }
    }
    return at;
}

static struct step *steps_outputs(const struct recipe *recipe, int64_t dv, int64_t keys,
                                  struct step *at)
{
    int64_t key_steps = me_ceil_div(keys, 32);
    for (int64_t c = 0; c < dv; c += 32)
        for (int64_t k = 0; k < key_steps; k++)
            for (int t = 0; t < recipe->terms; t++, at++) {
                int64_t row = c / 16 * recipe->left_parts + recipe->left[t];
                at->left = (int32_t)(row * KEY_STEPS + k) * TILE;
                at->left2 = dv - c > 16 ? at->left + recipe->left_parts * KEY_STEPS * TILE : -1;
                at->right = (int32_t)(recipe->right[t] * KEY_STEPS + k) * TILE;
                at->right2 = at->right + recipe->right_parts * KEY_STEPS * TILE;
                at->first = k == 0 && t == 0;
                at->odd = at->left2 < 0 && (t & 1);
                at->same = t > 0 && recipe->left[t] == recipe->left[t - 1];
                at->out = k == key_steps - 1 && t == recipe->terms - 1 ? (int32_t)(c * ROWS) : -1;
            }
    return at;
}

static ALWAYS_INLINE void step_run(const struct step *step, const uint16_t *left,
                                   const uint16_t *right, float *out)
{
    if (step->first) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    if (!step->same)
        _tile_loadd(4, left + step->left, 64);
    _tile_loadd(6, right + step->right, 64);
    _tile_loadd(7, right + step->right2, 64);
    if (step->odd) {
        _tile_dpbf16ps(2, 4, 6);
        _tile_dpbf16ps(3, 4, 7);
    } else {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
    }
    if (step->left2 >= 0) {
        if (!step->same)
            _tile_loadd(5, left + step->left2, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    if (step->out >= 0) {
        float *at = out + step->out;
        _tile_stored(0, at, ROWS * sizeof *at);
        _tile_stored(1, at + LANES, ROWS * sizeof *at);
        _tile_stored(2, at + 16 * ROWS, ROWS * sizeof *at);
        _tile_stored(3, at + 16 * ROWS + LANES, ROWS * sizeof *at);
    }
}

/* Work of the tile unit that runs beside the vector unit's: scores of the next microtile, then the
 * output of the one before. */
struct stream {
    const struct step *scores, *outputs;
    int64_t n_scores, n_outputs, done;
    uint64_t pace,
        due; /* steps between two pieces of the vector unit's work, and done by now: 16.16 */
    const uint16_t *keys, *queries, *values, *probabilities;
    float *s, *sums;
};

static ALWAYS_INLINE void stream_until(struct stream *t, int64_t end)
{
    for (; t->done < end; t->done++) {
        if (t->done < t->n_scores)
            step_run(&t->scores[t->done], t->keys, t->queries, t->s);
        else
            step_run(&t->outputs[t->done - t->n_scores], t->values, t->probabilities, t->sums);
    }
}

/* Before the first of so many pieces of other work. */
static ALWAYS_INLINE void stream_pace(struct stream *t, int64_t pieces)
{
    t->pace = ((uint64_t)(t->n_scores + t->n_outputs) << 16) / (uint64_t)pieces;
}

/* Before each piece: the steps that are its share. */
static ALWAYS_INLINE void stream_share(struct stream *t)
{
    t->due += t->pace;
    stream_until(t, (int64_t)(t->due >> 16));
}

static void stream_finish(struct stream *t)
{
    stream_until(t, t->n_scores + t->n_outputs);
}

/* ---- the vector unit's part ---- */

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

/* S of a microtile becomes P, while the stream runs. */
static ALWAYS_INLINE void softmax_split(const float *s, int64_t keys, float *max, float *sum,
                                        float *alpha, uint16_t *probabilities, int parts,
                                        struct stream *stream)
{
    vec top[NV], total[NV];
    for (int v = 0; v < NV; v++) {
        top[v] = vec_load(max + v * LANES);
        total[v] = vec_set1(0.0f);
    }
    for (int64_t j = 0; j < keys; j++)
        for (int v = 0; v < NV; v++)
            top[v] = vec_max(vec_load(s + j * ROWS + v * LANES), top[v]);
    for (int v = 0; v < NV; v++) {
        vec old = vec_load(max + v * LANES);
        vec_store(max + v * LANES, top[v]);
        top[v] = vec_shield(top[v]);
        vec_store(alpha + v * LANES, vec_exp(vec_sub(old, top[v])));
    }
    int64_t pairs = me_round_up(keys, 32) / 2;
    stream_pace(stream, pairs);
    for (int64_t j = 0; j < pairs; j++) {
        stream_share(stream);
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
    for (int v = 0; v < NV; v++) {
        float *at = sum + v * LANES;
        vec_store(at, vec_fma(vec_load(at), vec_load(alpha + v * LANES), total[v]));
    }
}

static void softmax(const float *s, int64_t keys, float *max, float *sum, float *alpha,
                    uint16_t *probabilities, int parts, struct stream *stream)
{
    if (parts == 3)
        softmax_split(s, keys, max, sum, alpha, probabilities, 3, stream);
    else if (parts == 2)
        softmax_split(s, keys, max, sum, alpha, probabilities, 2, stream);
    else
        softmax_split(s, keys, max, sum, alpha, probabilities, 1, stream);
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
            .keys = (const uint16_t *)m->kp,
            .queries = (const uint16_t *)(m->qt + (more ? next.i0 - first : 0) * query_floats(p)),
            .values = (const uint16_t *)m->vp,
            .probabilities = room.probabilities[other],
            .s = room.s[other],
            .sums = room.sums,
        };
        if (current >= 0) {
            window_edit(p, w, room.s[turn]);
            softmax(room.s[turn], w->keys, m->max + current, m->sum + current, room.alpha[turn],
                    room.probabilities[turn], recipe->right_parts, &stream);
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
        stream_share(stream);
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
    if (p->d > MAX_DIM)
        return 0;
    tiles_configure();
    int done = tiles_attend(p, task, scratch);
    _tile_release();
    return done;
}

static int amx_mass(const struct me_problem *p, int64_t task, void *scratch)
{
    if (p->d > MAX_DIM)
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
    .scratch = tiles_scratch,
    .attend = amx_attend,
    .mass = amx_mass,
    .least_keys = 256,
    .fallback = &memory_efficient_avx512,
};
