/* What is done to a tile of scores [key][ROWS] before it meets V, over the vector operations of an
 * instruction set: vec, LANES, vec_load, vec_store, vec_set1, vec_add, vec_sub, vec_fma(a, b, c) =
 * a b + c, vec_max(a, b) (b if a is NaN), vec_exp, vec_shield(x) (0 where x is minus infinity, else
 * x), vec_sum.  Queries lie in the lanes, so nothing here works across lanes.  NV vectors make the
 * ROWS queries of a microtile; the last one of a block has fewer, nv. */

/* Scores become exp(s - max); max, sum and alpha, the factor for what was summed before, follow. */
static ALWAYS_INLINE void softmax_tile(int nv, float *s, int64_t keys, float *max, float *sum,
                                       float *alpha)
{
    vec top[NV], total[NV];
    UNROLL
    for (int v = 0; v < nv; v++) {
        top[v] = vec_load(max + v * LANES);
        total[v] = vec_set1(0.0f);
    }
    for (int64_t j = 0; j < keys; j++)
        UNROLL
    for (int v = 0; v < nv; v++)
        top[v] = vec_max(vec_load(s + j * ROWS + v * LANES), top[v]);
    UNROLL
    for (int v = 0; v < nv; v++) {
        vec old = vec_load(max + v * LANES);
        vec_store(max + v * LANES, top[v]);
        top[v] = vec_shield(top[v]);
        vec_store(alpha + v * LANES, vec_exp(vec_sub(old, top[v])));
    }
    for (int64_t j = 0; j < keys; j++)
        UNROLL
    for (int v = 0; v < nv; v++) {
        float *at = s + j * ROWS + v * LANES;
        vec e = vec_exp(vec_sub(vec_load(at), top[v]));
        vec_store(at, e);
        total[v] = vec_add(total[v], e);
    }
    UNROLL
    for (int v = 0; v < nv; v++) {
        float *at = sum + v * LANES;
        vec_store(at, vec_fma(vec_load(at), vec_load(alpha + v * LANES), total[v]));
    }
}

/* exp(s - lse), summed over the queries of each lane into part[key][lane]. */
static ALWAYS_INLINE void mass_tile(int nv, const float *s, int64_t keys, const float *lse,
                                    float *part)
{
    vec norm[NV];
    UNROLL
    for (int v = 0; v < nv; v++)
        norm[v] = vec_load(lse + v * LANES);
    for (int64_t j = 0; j < keys; j++) {
        vec sum = vec_load(part + j * LANES);
        UNROLL
        for (int v = 0; v < nv; v++)
            sum = vec_add(sum, vec_exp(vec_sub(vec_load(s + j * ROWS + v * LANES), norm[v])));
        vec_store(part + j * LANES, sum);
    }
}
