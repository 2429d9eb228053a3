/* How numbers are cut into bfloat16 parts, and how their tiles lie in memory: a part of
 * memory_efficient_amx.c, which says why. */

#define TILE       512 /* bfloat16 numbers in a tile: 16 rows of 32 */
#define TERMS      6
#define MAX_DIM    512
#define MAX_STEPS  (TERMS * MAX_DIM / 32)
#define TILE_BYTES (512 << 10)
#define KEY_STEPS  (ME_KEYS / 32)

/* Which parts of the left and right numbers are multiplied: such an order that each product shares
 * a part with the one before, which is then in the tile unit already, and the largest comes last.
 */
struct recipe {
    int left_parts, right_parts, terms;
    uint8_t left[TERMS], right[TERMS];
};

/* Of both products: queries left and keys right, probabilities left and values right.  A single
 * part of P is rounded, not cut off. */
static const struct recipe recipes[] = {
    [ME_F32] = {3, 3, 6, {0, 0, 1, 1, 2, 0}, {2, 1, 1, 0, 0, 0}},
    [ME_F16] = {2, 2, 3, {0, 0, 1}, {1, 0, 0}},
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
    return plan_make(&recipes[p->products], me_min(p->d, MAX_DIM));
}

/* Half inputs have few enough bits to be multiplied as they are; the scale is then left to the
 * exponentials. */
static float scale_before(const struct me_problem *p)
{
    return p->products == ME_F32 ? p->scale : 1.0f;
}

static float scale_after(const struct me_problem *p)
{
    return p->products == ME_F32 ? 1.0f : p->scale;
}

static int64_t query_floats(const struct me_problem *p)
{
    return score_plan(p).left_tiles * 16;
}

static int64_t key_floats(const struct me_problem *p)
{
    return score_plan(p).right_tiles * 16;
}

static int64_t value_floats(const struct me_problem *p)
{
    return recipes[p->products].right_parts * me_round_up(p->dv, 32) / 2;
}

/* As many as the second-level cache has room for, packed, beside queries and outputs: more make
 * outputs less often added up.  A band leaves less of small tiles unseen. */
static int64_t tile_keys(const struct me_problem *p)
{
    int64_t bytes = (key_floats(p) + value_floats(p)) * (int64_t)sizeof(float);
    return bytes * ME_KEYS <= TILE_BYTES && !p->band ? ME_KEYS : ME_KEYS / 2;
}

/* ---- parts ---- */

/* The largest magnitude so far, of which only whether it is finite matters. */
static ALWAYS_INLINE vec larger(vec largest, vec x)
{
    return _mm512_range_ps(largest, x, 0xb); /* of the larger magnitude, made positive */
}

static int any_not_finite(vec largest)
{
    return _mm512_cmp_ps_mask(largest, vec_set1(__FLT_MAX__), _CMP_NLE_UQ) != 0;
}

/* Two rows of sixteen as pairs, the first in the low half: their upper halves, then the rest. */
static ALWAYS_INLINE __m512i pair_upper(vec a, vec b)
{
    return _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(_mm512_castps_si512(a), 16),
                                   _mm512_castps_si512(b));
}

static ALWAYS_INLINE vec rest(vec x)
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

/* Up to sixteen adjacent elements, widened, the rest zero. */
static ALWAYS_INLINE vec load_some(const char *at, enum me_type type, int64_t n)
{
    __mmask16 mask = n >= 16 ? 0xffff : (__mmask16)((1 << n) - 1);
    if (type == ME_F32)
        return _mm512_maskz_loadu_ps(mask, at);
    __m256i half = _mm256_maskz_loadu_epi16(mask, at);
    if (type == ME_F16)
        return _mm512_cvtph_ps(half);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* Columns [col, col + 16) of a row; what is past `cols` is zero. */
static ALWAYS_INLINE vec row_load(const struct me_matrix *m, enum me_type type, int64_t row,
                                  int64_t col, int64_t cols)
{
    const char *at = m->data + row * m->row + col * m->col;
    int64_t n = me_min(16, cols - col);
    float x[16] = {0.0f};
    if (n <= 0)
        return vec_set1(0.0f);
    if (m->col == me_type_size(type))
        return load_some(at, type, n);
    for (int64_t i = 0; i < n; i++)
        x[i] = element_load(at + i * m->col, type);
    return vec_load(x);
}

/* ---- packing ---- */

/* Where the columns from c on of a part, or of a term's section, go: in bfloat16 numbers from the
 * row's place in its first tile, if a row of a tile is 32 numbers of `unit` bytes' worth apart. */
static inline int64_t place(const struct plan *plan, int parts, int part_or_term, int64_t c)
{
    if (c < plan->whole * 32)
        return (part_or_term * plan->whole + c / 32) * 32 + c % 32;
    return parts * plan->whole * 32 + part_or_term * plan->over + c - plan->whole * 32;
}

/* What is packed: a matrix of `rows` rows by d columns, multiplied by scale, of which a group of 16
 * rows goes to `group`; `room` holds 32 columns of 16 floats. */
struct packing {
    struct plan plan;
    struct me_matrix from;
    int64_t rows, d;
    float scale;
    uint16_t *group;
    float *room;
    vec largest;
};

/* Within a whole tile a pair is columns c and c + 16: what multiplies it has the same order. */

static ALWAYS_INLINE void pack_left_row(struct packing *k, enum me_type type, int64_t row,
                                        int parts)
{
    uint16_t *to = k->group + row % 16 * 32;
    for (int64_t c = 0; c < k->plan.whole; c++) {
        __m512i part[3];
        vec a = vec_set1(0.0f), b = a;
        if (row < k->rows) {
            a = vec_mul(row_load(&k->from, type, row, c * 32, k->d), vec_set1(k->scale));
            b = vec_mul(row_load(&k->from, type, row, c * 32 + 16, k->d), vec_set1(k->scale));
        }
        k->largest = larger(larger(k->largest, a), b);
        split_pair(a, b, part, parts);
        UNROLL
        for (int i = 0; i < parts; i++)
            _mm512_storeu_si512(to + (i * k->plan.whole + c) * TILE, part[i]);
    }
}

static ALWAYS_INLINE void pack_right_tile(struct packing *k, enum me_type type, int64_t c,
                                          int64_t row, int parts)
{
    vec x[32];
    if (row + 16 <= k->rows && k->from.col == me_type_size(type)) {
        const char *at = k->from.data + row * k->from.row + c * 32 * k->from.col;
        vec_columns(at, k->from.row, type, x);
        vec_columns(at + 16 * k->from.col, k->from.row, type, x + 16);
    } else {
        memset(k->room, 0, 32 * 16 * sizeof(float));
        transpose(k->room, 16, me_at(k->from, row, c * 32), me_min(16, k->rows - row), 32, 1.0f);
        for (int i = 0; i < 32; i++)
            x[i] = vec_load(k->room + i * 16);
    }
    for (int i = 0; i < 16; i++) {
        __m512i part[3];
        k->largest = larger(larger(k->largest, x[i]), x[16 + i]);
        split_pair(x[i], x[16 + i], part, parts);
        UNROLL
        for (int s = 0; s < parts; s++)
            _mm512_storeu_si512(k->group + (s * k->plan.whole + c) * TILE + i * 32, part[s]);
    }
}

/* The columns left over, of sixteen rows, whose sections lie one after another: pairs of adjacent
 * columns, sixteen rows to a vector if `right`, else one row after another. */
static void pack_over(struct packing *k, int64_t row, int right)
{
    const struct plan *plan = &k->plan;
    const struct recipe *recipe = plan->recipe;
    int64_t first = plan->whole * 32, sections = recipe->terms * plan->over;
    int parts = right ? recipe->right_parts : recipe->left_parts;
    uint16_t *over = k->group + parts * plan->whole * TILE;
    memset(over, 0, (size_t)(plan->over_tiles * TILE) * sizeof *over);
    memset(k->room, 0, 32 * 16 * sizeof(float));
    transpose(k->room, 16, me_at(k->from, row, first), me_min(16, k->rows - row), k->d - first,
              k->scale);
    for (int64_t c = 0; c < plan->over && sections; c += 2) {
        _Alignas(64) uint32_t rows[3][16];
        __m512i part[3];
        vec a = vec_load(k->room + c * 16), b = vec_load(k->room + (c + 1) * 16);
        k->largest = larger(larger(k->largest, a), b);
        split_pair(a, b, part, 3);
        for (int i = 0; i < 3; i++)
            _mm512_store_si512(rows[i], part[i]);
        for (int t = 0; t < recipe->terms; t++) {
            int64_t at = t * plan->over + c;
            int i = right ? recipe->right[t] : recipe->left[t];
            uint16_t *tile = over + at / 32 * TILE;
            if (right)
                memcpy(tile + at % 32 * 16, rows[i], 64);
            else
                for (int64_t r = 0; r < 16; r++)
                    memcpy(tile + r * 32 + at % 32, &rows[i][r], 4);
        }
    }
}

static ALWAYS_INLINE void pack_typed(struct packing *k, enum me_type type, int parts, int right)
{
    const int64_t tiles = right ? k->plan.right_tiles : k->plan.left_tiles;
    for (int64_t row = 0; row < k->rows; row += 16, k->group += tiles * TILE) {
        if (right)
            for (int64_t c = 0; c < k->plan.whole; c++)
                pack_right_tile(k, type, c, row, parts);
        else
            for (int64_t r = row; r < row + 16; r++)
                pack_left_row(k, type, r, parts);
        if (k->plan.over)
            pack_over(k, row, right);
    }
}

/* Groups of sixteen rows; those past the last are zero. */
static ALWAYS_INLINE void pack_rows(const struct me_problem *p, struct tile_memory *m,
                                    struct me_matrix from, int64_t rows, float scale, float *to,
                                    int right)
{
    struct packing k = {score_plan(p), from,           rows,    p->d,
                        scale,         (uint16_t *)to, m->room, vec_set1(0.0f)};
    if (from.type == ME_F32)
        pack_typed(&k, ME_F32, 3, right);
    else if (from.type == ME_F16 && p->products == ME_F32)
        pack_typed(&k, ME_F16, 3, right);
    else if (from.type == ME_F16)
        pack_typed(&k, ME_F16, 2, right);
    else if (p->products == ME_F32)
        pack_typed(&k, ME_BF16, 3, right);
    else
        pack_typed(&k, ME_BF16, 1, right);
    m->refused |= any_not_finite(k.largest);
}

/* [query / 16][tile][query % 16][32] */
static void pack_queries(const struct me_problem *p, struct tile_memory *m, struct me_matrix q,
                         int64_t rows, float *qt)
{
    pack_rows(p, m, q, rows, scale_before(p), qt, 0);
    if (rows <= 16)
        memset(qt + 16 * query_floats(p), 0, (size_t)(16 * query_floats(p)) * sizeof *qt);
}

/* [key / 16][tile][pair of columns][key % 16][2] */
static void pack_keys(const struct me_problem *p, struct tile_memory *m, struct me_matrix k,
                      int64_t keys, float *kp)
{
    pack_rows(p, m, k, keys, 1.0f, kp, 1);
}

static ALWAYS_INLINE void pack_values_typed(struct me_matrix v, enum me_type type, int64_t keys,
                                            int64_t dv, int parts, uint16_t *vp, vec *largest)
{
    for (int64_t j = 0; j < keys; j = j % 16 == 15 ? j + 17 : j + 1)
        for (int64_t c = 0; c < dv; c += 16) {
            __m512i part[3];
            vec a = row_load(&v, type, j, c, dv), b = vec_set1(0.0f);
            if (j + 16 < keys)
                b = row_load(&v, type, j + 16, c, dv);
            *largest = larger(larger(*largest, a), b);
            split_pair(a, b, part, parts);
            UNROLL
            for (int i = 0; i < parts; i++)
                _mm512_storeu_si512(
                    vp + ((c / 16 * parts + i) * KEY_STEPS + j / 32) * TILE + j % 16 * 32, part[i]);
        }
}

/* [column / 16][part][key / 32][key % 16][column % 16][2]: a pair is keys j and j + 16.  Keys up to
 * the next multiple of 32 and columns up to the next multiple of 16 are zero. */
static void pack_values(const struct me_problem *p, struct tile_memory *m, struct me_matrix v,
                        int64_t keys)
{
    int parts = recipes[p->products].right_parts;
    uint16_t *vp = (uint16_t *)m->vp;
    vec largest = vec_set1(0.0f);
    if (keys % 32)
        for (int64_t t = keys / 32; t < me_ceil_div(p->dv, 16) * parts * KEY_STEPS; t += KEY_STEPS)
            memset(vp + t * TILE, 0, TILE * sizeof *vp);
    if (v.type == ME_F32)
        pack_values_typed(v, ME_F32, keys, p->dv, 3, vp, &largest);
    else if (v.type == ME_F16 && parts == 3)
        pack_values_typed(v, ME_F16, keys, p->dv, 3, vp, &largest);
    else if (v.type == ME_F16)
        pack_values_typed(v, ME_F16, keys, p->dv, 2, vp, &largest);
    else if (parts == 3)
        pack_values_typed(v, ME_BF16, keys, p->dv, 3, vp, &largest);
    else
        pack_values_typed(v, ME_BF16, keys, p->dv, 1, vp, &largest);
    m->refused |= any_not_finite(largest);
}
