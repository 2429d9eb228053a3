/* The vector unit's part: scores that lie S[query][ME_KEYS], a row at a time, while the tile unit
 * works.  A part of memory_efficient_amx.c. */

/* What pieces of work take, by which the tile unit's steps are shared out among them: the first
 * look at a row, with a bias or a mask or without, and 32 of its exponentials. */
enum { LOOK_WEIGHT = 2, EDIT_WEIGHT = 4, EXP_WEIGHT = 4 };

/* What lies beside the vector unit's work. */
struct beside {
    struct stream *stream;
    struct fetch *fetch;
};

static int64_t row_weight(int64_t keys, int edited)
{
    return me_ceil_div(keys, 32) * EXP_WEIGHT + (edited ? EDIT_WEIGHT : LOOK_WEIGHT);
}

/* ---- a row's scores ---- */

/* One row of a bias or a mask, its columns made adjacent. */
static const char *row_adjacent(struct me_matrix x, int64_t keys, float *room)
{
    int64_t size = me_type_size(x.type);
    if (x.col == size)
        return x.data;
    for (int64_t j = 0; j < keys; j++)
        memcpy((char *)room + j * size, x.data + j * x.col, (size_t)size);
    return (const char *)room;
}

static ALWAYS_INLINE void row_add(float *s, const char *bias, enum me_type type, int64_t keys,
                                  vec scale)
{
    for (int64_t j = 0; j < keys; j += LANES)
        vec_store(s + j, vec_fma(vec_load(s + j), scale,
                                 load_some(bias + j * me_type_size(type), type, keys - j)));
}

static void row_bias(float *s, struct me_matrix bias, int64_t keys, float scale)
{
    _Alignas(64) float room[ME_KEYS];
    const char *row = row_adjacent(bias, keys, room);
    if (bias.type == ME_F32)
        row_add(s, row, ME_F32, keys, vec_set1(scale));
    else if (bias.type == ME_F16)
        row_add(s, row, ME_F16, keys, vec_set1(scale));
    else
        row_add(s, row, ME_BF16, keys, vec_set1(scale));
}

static void row_scale(float *s, int64_t keys, float scale)
{
    for (int64_t j = 0; j < keys; j += LANES)
        vec_store(s + j, vec_mul(vec_load(s + j), vec_set1(scale)));
}

static void row_mask(float *s, struct me_matrix mask, int64_t keys)
{
    _Alignas(64) float room[ME_KEYS];
    const char *row = row_adjacent(mask, keys, room);
    for (int64_t j = 0; j < keys; j += LANES) {
        __mmask16 some = keys - j >= 16 ? 0xffff : (__mmask16)((1 << (keys - j)) - 1);
        __m128i bytes = _mm_maskz_loadu_epi8(some, row + j);
        __mmask16 hidden = _mm_testn_epi8_mask(bytes, bytes);
        vec_store(s + j, _mm512_mask_mov_ps(vec_load(s + j), hidden, vec_set1(-INFINITY)));
    }
}

/* Keys outside [begin, end) become minus infinity. */
static void row_hide(float *s, int64_t keys, int64_t begin, int64_t end)
{
    for (int64_t j = 0; j < me_min(begin, keys); j++)
        s[j] = -INFINITY;
    for (int64_t j = me_max(end, 0); j < keys; j++)
        s[j] = -INFINITY;
}

/* The bias of a window, if the tile unit's sums can start there; they are scaled then already. */
static struct start window_start(const struct me_problem *p, const struct window *w)
{
    struct me_matrix bias = me_at(me_head(&p->bias, w->b, w->h, w->i0), 0, w->j0);
    if (!bias.data || bias.type != ME_F32 || p->products != ME_F32 || bias.col != sizeof(float) ||
        w->rows < ROWS || w->keys % 32)
        return (struct start){0};
    return (struct start){bias.data, bias.row};
}

/* Whether some of the window's scores need more than the scale: then all are scaled and edited. */
static int window_edited(const struct me_problem *p, const struct window *w)
{
    return (p->bias.data && !window_start(p, w).data) || p->mask.data || w->keys % 32 ||
           (p->band &&
            (w->j0 - (w->i0 + w->rows - 1) < p->lo || w->j0 + w->keys - 1 - w->i0 > p->hi));
}

/* Scale, bias, mask and band upon one row; what is past the last key adds nothing. */
static void row_edit(const struct me_problem *p, const struct window *w, int64_t r, float *s)
{
    int64_t at = w->j0 - w->i0 - r, begin = 0, end = w->keys, keys = me_round_up(end, 32);
    if (p->bias.data && !window_start(p, w).data)
        row_bias(s, me_at(me_head(&p->bias, w->b, w->h, w->i0), r, w->j0), w->keys, scale_after(p));
    else if (scale_after(p) != 1.0f)
        row_scale(s, w->keys, scale_after(p));
    if (p->mask.data)
        row_mask(s, me_at(me_head(&p->mask, w->b, w->h, w->i0), r, w->j0), w->keys);
    if (p->band) {
        begin = me_max(0, p->lo - at);
        end = me_min(end, p->hi - at + 1);
    }
    if (begin > 0 || end < keys)
        row_hide(s, keys, begin, end);
}

/* ---- softmax ---- */

static ALWAYS_INLINE vec join(int adds, vec a, vec b)
{
    return adds ? vec_add(a, b) : vec_max(a, b);
}

/* Lane i: what row i of sixteen comes to. */
static ALWAYS_INLINE vec rows_join(int adds, const vec rows[16])
{
    vec x[8], y[4], z[2];
    UNROLL
    for (int i = 0; i < 8; i++)
        x[i] = join(adds, _mm512_shuffle_f32x4(rows[i], rows[i + 8], 0x44),
                    _mm512_shuffle_f32x4(rows[i], rows[i + 8], 0xee));
    UNROLL
    for (int i = 0; i < 4; i++)
        y[i] = join(adds, _mm512_shuffle_f32x4(x[i], x[i + 4], 0x88),
                    _mm512_shuffle_f32x4(x[i], x[i + 4], 0xdd));
    UNROLL
    for (int i = 0; i < 2; i++)
        z[i] = join(adds, _mm512_unpacklo_ps(y[2 * i], y[2 * i + 1]),
                    _mm512_unpackhi_ps(y[2 * i], y[2 * i + 1]));
    vec all = join(adds, _mm512_shuffle_ps(z[0], z[1], 0x44), _mm512_shuffle_ps(z[0], z[1], 0xee));
    return _mm512_shuffle_f32x4(all, all, 0xd8); /* lanes were of rows 0, 8, 4 and 12 on */
}

/* The largest score of each row, edited if need be; rows past the last keep minus infinity. */
static void rows_look(const struct me_problem *p, const struct window *w, int edited, float *s,
                      vec top[NV], struct beside *beside)
{
    vec scale = vec_set1(edited ? 1.0f : scale_after(p)), of_row[ROWS];
    for (int64_t r = 0; r < ROWS; r++) {
        of_row[r] = vec_set1(-INFINITY);
        if (r >= w->rows)
            continue;
        stream_share(beside->stream, edited ? EDIT_WEIGHT : LOOK_WEIGHT);
        fetch_share(beside->fetch);
        if (edited)
            row_edit(p, w, r, s + r * ME_KEYS);
        for (int64_t j = 0; j < w->keys; j += LANES)
            of_row[r] = vec_max(vec_mul(vec_load(s + r * ME_KEYS + j), scale), of_row[r]);
    }
    for (int v = 0; v < NV; v++)
        top[v] = rows_join(0, of_row + v * LANES);
}

/* P of 32 keys of a row, keys j and j + 16 in pairs, into [part][key / 32][query % 16][32]. */
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

/* S becomes P, and each row's sum; top: maxima of the rows, not infinite. */
static ALWAYS_INLINE void rows_split(const struct window *w, const float *s, float scale,
                                     const float *top, vec total[NV], uint16_t *probabilities,
                                     int parts, struct beside *beside)
{
    vec of_row[ROWS];
    for (int64_t r = 0; r < ROWS; r++, s += ME_KEYS) {
        uint16_t *to = probabilities + r / 16 * parts * KEY_STEPS * TILE + r % 16 * 32;
        vec most = vec_set1(top[r]), factor = vec_set1(scale);
        of_row[r] = vec_set1(0.0f);
        for (int64_t j = 0; r < w->rows && j < w->keys; j += 32, to += TILE) {
            stream_share(beside->stream, EXP_WEIGHT);
            fetch_share(beside->fetch);
            vec a = vec_exp(_mm512_fmsub_ps(vec_load(s + j), factor, most));
            vec b = vec_exp(_mm512_fmsub_ps(vec_load(s + j + 16), factor, most));
            of_row[r] = vec_add(of_row[r], vec_add(a, b));
            store_pair(a, b, to, parts);
        }
    }
    for (int v = 0; v < NV; v++)
        total[v] = rows_join(1, of_row + v * LANES);
}

/* S of a window becomes P; max, sum and alpha, the factor for what was summed before, follow. */
static void softmax(const struct me_problem *p, const struct window *w, float *s, float *max,
                    float *sum, float *alpha, uint16_t *probabilities, struct beside *beside)
{
    _Alignas(64) float most[ROWS];
    int parts = recipes[p->products].left_parts, edited = window_edited(p, w);
    float scale = edited ? 1.0f : scale_after(p);
    vec top[NV], total[NV];
    rows_look(p, w, edited, s, top, beside);
    for (int v = 0; v < NV; v++) {
        vec old = vec_load(max + v * LANES);
        top[v] = vec_max(top[v], old);
        vec_store(max + v * LANES, top[v]);
        top[v] = vec_shield(top[v]);
        vec_store(most + v * LANES, top[v]);
        vec_store(alpha + v * LANES, vec_exp(vec_sub(old, top[v])));
    }
    if (parts == 3)
        rows_split(w, s, scale, most, total, probabilities, 3, beside);
    else if (parts == 2)
        rows_split(w, s, scale, most, total, probabilities, 2, beside);
    else
        rows_split(w, s, scale, most, total, probabilities, 1, beside);
    for (int v = 0; v < NV; v++) {
        float *at = sum + v * LANES;
        vec_store(at, vec_fma(vec_load(at), vec_load(alpha + v * LANES), total[v]));
    }
}

/* ---- outputs ---- */

static int64_t output_floats(const struct me_problem *p)
{
    return me_round_up(p->dv, 16);
}

/* A line more than the columns: else the same column of every row of 512 would lie in one set of
 * the cache. */
static int64_t sums_row(const struct me_problem *p)
{
    return me_round_up(p->dv, 32) + 16;
}

/* ot = ot * alpha + sums; the sums of a last single column of tiles are in two places. */
static void output_add(const struct me_problem *p, const float *sums, const float *alpha,
                       int64_t rows, float *ot)
{
    int64_t dv = output_floats(p), pairs = dv / 32 * 32;
    for (int64_t r = 0; r < rows; r++, sums += sums_row(p), ot += dv) {
        vec factor = vec_set1(alpha[r]);
        for (int64_t c = 0; c < pairs; c += 16)
            vec_store(ot + c, vec_fma(vec_load(ot + c), factor, vec_load(sums + c)));
        if (pairs < dv)
            vec_store(ot + pairs,
                      vec_fma(vec_load(ot + pairs), factor,
                              vec_add(vec_load(sums + pairs), vec_load(sums + pairs + 16))));
    }
}

static ALWAYS_INLINE void store_some(char *at, enum me_type type, vec x, int64_t n)
{
    __mmask16 mask = n >= 16 ? 0xffff : (__mmask16)((1 << n) - 1);
    if (type == ME_F32) {
        _mm512_mask_storeu_ps(at, mask, x);
        return;
    }
    __m256i half;
    if (type == ME_F16)
        half = _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT);
    else
        half = _mm256_setr_m128i(bf16_round(_mm512_castps512_ps256(x)),
                                 bf16_round(_mm512_extractf32x8_ps(x, 1)));
    _mm256_mask_storeu_epi16(at, mask, half);
}

static ALWAYS_INLINE void store_typed(struct me_matrix out, enum me_type type, const float *ot,
                                      const float *factor, int64_t rows, int64_t dv)
{
    for (int64_t r = 0; r < rows; r++, ot += me_round_up(dv, 16)) {
        char *row = out.data + r * out.row;
        if (out.col == me_type_size(type))
            for (int64_t c = 0; c < dv; c += 16)
                store_some(row + c * out.col, type, vec_mul(vec_load(ot + c), vec_set1(factor[r])),
                           dv - c);
        else
            for (int64_t c = 0; c < dv; c++)
                element_store(row + c * out.col, type, ot[c] * factor[r]);
    }
}

/* Writes out and lse of one microtile. */
static void store_outputs(const struct me_problem *p, const struct window *w, const float *ot,
                          const float *max, float *sum)
{
    struct me_matrix out = me_head(&p->out, w->b, w->h, w->i0);
    finish_rows(p, w, max, sum);
    if (out.type == ME_F32)
        store_typed(out, ME_F32, ot, sum, w->rows, p->dv);
    else if (out.type == ME_F16)
        store_typed(out, ME_F16, ot, sum, w->rows, p->dv);
    else
        store_typed(out, ME_BF16, ot, sum, w->rows, p->dv);
}
