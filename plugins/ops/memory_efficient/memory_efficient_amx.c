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
    [ME_F32] = {3, 3, 6, {0, 0, 1, 1, 0, 2}, {0, 1, 0, 1, 2, 0}},
    [ME_F16] = {2, 2, 3, {0, 0, 1}, {0, 1, 0}},
    [ME_BF16] = {1, 2, 2, {0, 0}, {0, 1}},
};
/* Outputs: values left, probabilities right. A single part of P is rounded, not cut off. */
static const struct recipe output_recipes[] = {
    [ME_F32] = {3, 3, 6, {0, 0, 1, 1, 0, 2}, {0, 1, 0, 1, 2, 0}},
    [ME_F16] = {2, 2, 3, {0, 0, 1}, {0, 1, 0}},
    [ME_BF16] = {1, 1, 1, {0}, {0}},
};

/* How the reduction over the columns of a row is cut into steps of 32.  Where columns are a
 * multiple of 32, a row holds each part once and steps pick from them; else it holds a section for
 * each term, one after another, so that only the end of the last is padding. */
struct plan {
    int64_t section;                       /* columns of a part, a multiple of 8 */
    int left, right;                       /* sections of a row */
    const uint8_t *left_part, *right_part; /* of each section */
    int64_t left_tiles, right_tiles, steps;
    uint16_t left_at[MAX_STEPS], right_at[MAX_STEPS]; /* tile of each step */
};

static void plan_make(struct plan *plan, const struct recipe *recipe, int64_t d)
{
    static const uint8_t in_order[] = {0, 1, 2};
    int64_t tiles = d / 32;
    int whole = d % 32 == 0;
    plan->section = me_round_up(d, 8);
    plan->left = whole ? recipe->left_parts : recipe->terms;
    plan->right = whole ? recipe->right_parts : recipe->terms;
    plan->left_part = whole ? in_order : recipe->left;
    plan->right_part = whole ? in_order : recipe->right;
    plan->left_tiles = me_ceil_div(plan->left * plan->section, 32);
    plan->right_tiles = me_ceil_div(plan->right * plan->section, 32);
    plan->steps = whole ? recipe->terms * tiles : plan->left_tiles;
    for (int64_t s = 0; s < plan->steps; s++) {
        plan->left_at[s] =
            (uint16_t)(whole ? recipe->left[s % recipe->terms] * tiles + s / recipe->terms : s);
        plan->right_at[s] =
            (uint16_t)(whole ? recipe->right[s % recipe->terms] * tiles + s / recipe->terms : s);
    }
}

static int64_t row_floats(const struct me_problem *p, int left)
{
    struct plan plan;
    plan_make(&plan, &score_recipes[p->products], me_min(p->d, MAX_DIM));
    return (left ? plan.left_tiles : plan.right_tiles) * 16;
}

static int64_t query_floats(const struct me_problem *p)
{
    return row_floats(p, 0);
}

static int64_t key_floats(const struct me_problem *p)
{
    return row_floats(p, 1);
}

static int64_t value_floats(const struct me_problem *p)
{
    return output_recipes[p->products].left_parts * me_round_up(p->dv, 32) / 2;
}

/* Room: Q' of 16 queries before it is split; P; sums of two rows of tiles. */
static int64_t room_floats(const struct me_problem *p)
{
    return me_round_up(p->d, 8) * LANES + 3 * ME_KEYS * ROWS / 2 + 32 * ROWS;
}

static uint16_t *room_probabilities(const struct me_problem *p, const struct tile_memory *m)
{
    return (uint16_t *)(m->room + me_round_up(p->d, 8) * LANES);
}

static float *room_sums(const struct me_problem *p, const struct tile_memory *m)
{
    return m->room + me_round_up(p->d, 8) * LANES + 3 * ME_KEYS * ROWS / 2;
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

/* [key / 16][tile][key % 16][32]; rows up to the next multiple of 16 are zero. */
static void pack_keys(const struct me_problem *p, struct tile_memory *m, struct me_matrix k,
                      int64_t keys, float *kp)
{
    struct plan plan;
    __m256i largest = _mm256_setzero_si256();
    plan_make(&plan, &score_recipes[p->products], p->d);
    for (int64_t j = 0; j < me_round_up(keys, 16); j++) {
        uint16_t *group = (uint16_t *)kp + j / 16 * plan.left_tiles * TILE + j % 16 * 32;
        for (int64_t c = plan.left * plan.section; c < plan.left_tiles * 32; c += 8)
            _mm_storeu_si128((__m128i *)(group + c / 32 * TILE + c % 32), _mm_setzero_si128());
        for (int64_t c = 0; c < plan.section; c += 8) {
            __m128i part[3];
            v8 x = j < keys ? row_load8(&k, j, c, p->d) : _mm256_setzero_ps();
            split8(x, part, &largest);
            for (int s = 0; s < plan.left; s++) {
                int64_t at = s * plan.section + c;
                _mm_storeu_si128((__m128i *)(group + at / 32 * TILE + at % 32),
                                 part[plan.left_part[s]]);
            }
        }
    }
    m->refused |= any_not_finite(largest);
}

/* [query / 16][tile][column / 2 % 16][query % 16][2] */
static void pack_queries(const struct me_problem *p, struct tile_memory *m, struct me_matrix q,
                         int64_t rows, float *qt)
{
    struct plan plan;
    vec largest = vec_set1(0.0f);
    plan_make(&plan, &score_recipes[p->products], p->d);
    for (int64_t r = 0; r < ROWS; r += LANES) {
        uint16_t *group = (uint16_t *)qt + r / LANES * plan.right_tiles * TILE;
        memset(m->room, 0, (size_t)(plan.section * LANES) * sizeof(float));
        if (r < rows)
            transpose(m->room, LANES, me_at(q, r, 0), me_min(LANES, rows - r), p->d, p->scale);
        for (int64_t c = plan.right * plan.section; c < plan.right_tiles * 32; c += 2)
            _mm512_storeu_si512(group + c / 32 * TILE + c % 32 / 2 * 32, _mm512_setzero_si512());
        for (int64_t c = 0; c < plan.section; c += 2) {
            __m512i part[3];
            vec a = vec_load(m->room + c * LANES), b = vec_load(m->room + (c + 1) * LANES);
            largest = _mm512_range_ps(largest, a, 0xb); /* of the larger magnitude, made positive */
            largest = _mm512_range_ps(largest, b, 0xb);
            split_pair(a, b, part, 3);
            for (int s = 0; s < plan.right; s++) {
                int64_t at = s * plan.section + c;
                _mm512_storeu_si512(group + at / 32 * TILE + at % 32 / 2 * 32,
                                    part[plan.right_part[s]]);
            }
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

/* ---- products ---- */

static ALWAYS_INLINE void tiles_zero(void)
{
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

/* One step of two rows of tiles by two columns of tiles. */
static ALWAYS_INLINE void tiles_step(const uint16_t *a0, const uint16_t *a1, const uint16_t *b0,
                                     const uint16_t *b1)
{
    _tile_loadd(4, a0, 64);
    _tile_loadd(6, b0, 64);
    _tile_loadd(7, b1, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if (a1) {
        _tile_loadd(5, a1, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
}

static ALWAYS_INLINE void tiles_store(float *s, int two)
{
    _tile_stored(0, s, ROWS * sizeof *s);
    _tile_stored(1, s + LANES, ROWS * sizeof *s);
    if (two) {
        _tile_stored(2, s + 16 * ROWS, ROWS * sizeof *s);
        _tile_stored(3, s + 16 * ROWS + LANES, ROWS * sizeof *s);
    }
}

static ALWAYS_INLINE void scores_rows(const struct plan *plan, const uint16_t *k, const uint16_t *q,
                                      int two, float *s)
{
    const uint16_t *k1 = k + plan->left_tiles * TILE, *q1 = q + plan->right_tiles * TILE;
    tiles_zero();
    for (int64_t i = 0; i < plan->steps; i++) {
        int64_t left = plan->left_at[i] * TILE, right = plan->right_at[i] * TILE;
        tiles_step(k + left, two ? k1 + left : NULL, q + right, q1 + right);
    }
    tiles_store(s, two);
}

static void scores(const struct me_problem *p, int nv, const float *qt, const float *kp,
                   int64_t keys, float *s)
{
    struct plan plan;
    (void)nv;
    plan_make(&plan, &score_recipes[p->products], p->d);
    for (int64_t j = 0; j < keys; j += 32) {
        const uint16_t *k = (const uint16_t *)kp + j / 16 * plan.left_tiles * TILE;
        if (keys - j > 16)
            scores_rows(&plan, k, (const uint16_t *)qt, 1, s + j * ROWS);
        else
            scores_rows(&plan, k, (const uint16_t *)qt, 0, s + j * ROWS);
    }
}

/* P of two keys and sixteen queries, into [part][key / 32][key / 2 % 16][query][2]. */
static ALWAYS_INLINE void store_pair(vec a, vec b, uint16_t *at, int parts)
{
    __m512i part[3];
    if (parts == 1) {
        __m512i both = (__m512i)_mm512_cvtne2ps_pbh(b, a); /* a below, b above */
        const __m512i interleave =
            _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7,
                             22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
        _mm512_storeu_si512(at, _mm512_permutexvar_epi16(interleave, both));
        return;
    }
    split_pair(a, b, part, parts);
    UNROLL
    for (int i = 0; i < parts; i++)
        _mm512_storeu_si512(at + i * KEY_STEPS * TILE, part[i]);
}

static ALWAYS_INLINE void softmax_split(struct tile_memory *m, int64_t keys, float *max, float *sum,
                                        uint16_t *probabilities, int parts)
{
    for (int v = 0; v < NV; v++) {
        const float *s = m->s + v * LANES;
        uint16_t *at = probabilities + v * parts * KEY_STEPS * TILE;
        vec old = vec_load(max + v * LANES), top = old, total = vec_set1(0.0f);
        for (int64_t j = 0; j < keys; j++)
            top = vec_max(vec_load(s + j * ROWS), top);
        vec_store(max + v * LANES, top);
        top = vec_shield(top);
        vec alpha = vec_exp(vec_sub(old, top));
        for (int64_t j = 0; j < me_round_up(keys, 32); j += 2, at += 32) {
            vec a = vec_set1(0.0f), b = a;
            if (j < keys)
                a = vec_exp(vec_sub(vec_load(s + j * ROWS), top));
            if (j + 1 < keys)
                b = vec_exp(vec_sub(vec_load(s + (j + 1) * ROWS), top));
            total = vec_add(total, vec_add(a, b));
            store_pair(a, b, at, parts);
        }
        vec_store(m->alpha + v * LANES, alpha);
        vec_store(sum + v * LANES, vec_fma(vec_load(sum + v * LANES), alpha, total));
    }
}

/* Two rows of tiles of O', or the last one, from all keys of the tile. */
static ALWAYS_INLINE void output_rows(const struct recipe *recipe, const uint16_t *v,
                                      const uint16_t *probabilities, int64_t steps, int two,
                                      float *sums)
{
    const uint16_t *v1 = v + recipe->left_parts * KEY_STEPS * TILE;
    const uint16_t *p1 = probabilities + recipe->right_parts * KEY_STEPS * TILE;
    tiles_zero();
    for (int64_t k = 0; k < steps; k++)
        for (int t = 0; t < recipe->terms; t++) {
            int64_t left = (recipe->left[t] * KEY_STEPS + k) * TILE;
            int64_t right = (recipe->right[t] * KEY_STEPS + k) * TILE;
            tiles_step(v + left, two ? v1 + left : NULL, probabilities + right, p1 + right);
        }
    tiles_store(sums, two);
}

static void softmax_output(const struct me_problem *p, int nv, struct tile_memory *m, int64_t keys,
                           float *max, float *sum, float *ot)
{
    const struct recipe *recipe = &output_recipes[p->products];
    uint16_t *probabilities = room_probabilities(p, m);
    float *sums = room_sums(p, m);
    int64_t steps = me_ceil_div(keys, 32), dv = me_round_up(p->dv, ME_GROUP);
    (void)nv;
    if (recipe->right_parts == 3)
        softmax_split(m, keys, max, sum, probabilities, 3);
    else if (recipe->right_parts == 2)
        softmax_split(m, keys, max, sum, probabilities, 2);
    else
        softmax_split(m, keys, max, sum, probabilities, 1);
    for (int64_t c = 0; c < dv; c += 32) {
        const uint16_t *v =
            (const uint16_t *)m->vp + c / 16 * recipe->left_parts * KEY_STEPS * TILE;
        if (dv - c > 16)
            output_rows(recipe, v, probabilities, steps, 1, sums);
        else
            output_rows(recipe, v, probabilities, steps, 0, sums);
        for (int64_t i = 0; i < me_min(32, dv - c); i++)
            for (int w = 0; w < ROWS; w += LANES) {
                float *at = ot + (c + i) * ROWS + w;
                vec_store(at, vec_fma(vec_load(at), vec_load(m->alpha + w),
                                      vec_load(sums + i * ROWS + w)));
            }
    }
}

static void mass_add(int nv, const float *s, int64_t keys, const float *lse, float *part)
{
    (void)nv;
    mass_tile(NV, s, keys, lse, part);
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
    .fallback = &memory_efficient_avx512,
};
