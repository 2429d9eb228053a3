/* How numbers are cut into bfloat16 parts, and how their tiles lie in memory: a part of
 * memory_efficient_amx.c, which says why. */

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
