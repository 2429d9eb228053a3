/* The walk over tiles, compiled for each instruction set.  A task packs its queries, then takes the
 * keys tile by tile; each microtile of ROWS queries gets its scores, their exponentials, and its
 * share of the output, while the tile of keys is in the second-level cache.
 *
 * The including file has both products, as products.h or its own:
 *   ME_KEYS, tile_keys                       keys in a tile: at most, and for a problem
 *   query_floats, key_floats, value_floats   packed size of one query, key or value row
 *   output_floats                            size of one row of outputs
 *   room_floats                              of m->room, which is theirs alone
 *   pack_queries, pack_keys, pack_values     these may set m->refused: the task is given up
 *   block_tile                               a tile of keys against a block of queries
 *   store_outputs                            a microtile's rows of out and lse
 *   mass_windows, mass_of                    a head's queries against the keys of a mass task; what
 *                                            they gave to one key */

/* Bump allocation over the scratch; without memory it only counts. */
struct arena {
    char *base;
    uint64_t used;
};

static float *carve(struct arena *arena, int64_t floats)
{
    float *p = arena->base ? (float *)(arena->base + arena->used) : NULL;
    arena->used += (uint64_t)me_round_up(floats * (int64_t)sizeof *p, 64);
    return p;
}

static uint64_t memory_attend(const struct me_problem *p, char *base, struct tile_memory *m)
{
    struct arena arena = {base, 0};
    *m = (struct tile_memory){0};
    m->qt = carve(&arena, p->block_q * query_floats(p));
    m->ot = carve(&arena, p->block_q * output_floats(p));
    m->max = carve(&arena, p->block_q);
    m->sum = carve(&arena, p->block_q);
    m->kp = carve(&arena, ME_KEYS * key_floats(p));
    m->vp = carve(&arena, ME_KEYS * value_floats(p));
    m->room = carve(&arena, room_floats(p));
    return arena.used;
}

static uint64_t memory_mass(const struct me_problem *p, char *base, struct tile_memory *m)
{
    struct arena arena = {base, 0};
    *m = (struct tile_memory){0};
    m->qt = carve(&arena, ROWS * query_floats(p));
    m->max = carve(&arena, ROWS);
    m->kp = carve(&arena, ME_MASS_KEYS * key_floats(p));
    m->room = carve(&arena, room_floats(p));
    m->part = carve(&arena, ME_MASS_KEYS * LANES);
    m->mass = (double *)carve(&arena, ME_MASS_KEYS * 2);
    return arena.used;
}

static uint64_t tiles_scratch(const struct me_problem *p)
{
    struct tile_memory unused;
    uint64_t attend = memory_attend(p, NULL, &unused);
    uint64_t mass = p->wants_mass ? memory_mass(p, NULL, &unused) : 0;
    return attend > mass ? attend : mass;
}

/* Everything a block of queries starts with. */
static void block_begin(const struct me_problem *p, struct window *w, int64_t first, int64_t last,
                        struct tile_memory *m)
{
    for (w->i0 = first; w->i0 < last; w->i0 += ROWS) {
        w->rows = me_min(ROWS, last - w->i0);
        pack_queries(p, m, me_head(&p->q, w->b, w->h, w->i0), w->rows,
                     m->qt + (w->i0 - first) * query_floats(p));
    }
    memset(m->ot, 0, (size_t)(p->block_q * output_floats(p)) * sizeof *m->ot);
    for (int64_t i = 0; i < p->block_q; i++) {
        m->max[i] = -INFINITY;
        m->sum[i] = 0.0f;
    }
}

/* Returns 0, with nothing written, where the products refused the data. */
static int tiles_attend(const struct me_problem *p, int64_t task, void *scratch)
{
    struct tile_memory m;
    memory_attend(p, scratch, &m);
    int64_t head = task / p->blocks, end;
    int64_t first = me_block_begin(p, task % p->blocks);
    int64_t last = me_block_begin(p, task % p->blocks + 1);
    struct window w = {.b = head / p->heads, .h = head % p->heads};
    int64_t kv_head = w.h / (p->heads / p->kv_heads);
    struct me_matrix k = me_head(&p->k, w.b, kv_head, 0), v = me_head(&p->v, w.b, kv_head, 0);

    block_begin(p, &w, first, last, &m);
    key_range(p, first, last, &w.j0, &end);
    for (; w.j0 < end && !m.refused; w.j0 += tile_keys(p)) {
        w.keys = me_min(tile_keys(p), p->nk - w.j0);
        pack_keys(p, &m, me_at(k, w.j0, 0), w.keys, m.kp);
        pack_values(p, &m, me_at(v, w.j0, 0), w.keys);
        block_tile(p, &w, first, last, &m);
    }
    for (w.i0 = first; w.i0 < last && !m.refused; w.i0 += ROWS) {
        int64_t at = w.i0 - first;
        w.rows = me_min(ROWS, last - w.i0);
        store_outputs(p, &w, m.ot + at * output_floats(p), m.max + at, m.sum + at);
    }
    return !m.refused;
}

/* Adds one head's part of the mass of `keys` keys from j0. */
static void mass_head(const struct me_problem *p, struct window *w, int64_t j0, int64_t keys,
                      struct tile_memory *m)
{
    int64_t kv_head = w->h / (p->heads / p->kv_heads);
    memset(m->part, 0, (size_t)(keys * LANES) * sizeof *m->part);
    for (int64_t j = 0; j < keys; j += ME_KEYS)
        pack_keys(p, m, me_head(&p->k, w->b, kv_head, j0 + j), me_min(ME_KEYS, keys - j),
                  m->kp + j * key_floats(p));
    if (!m->refused)
        mass_windows(p, w, j0, keys, m);
    for (int64_t j = 0; j < keys; j++)
        m->mass[j] += (double)mass_of(m, j);
}

/* As tiles_attend. */
static int tiles_mass(const struct me_problem *p, int64_t task, void *scratch)
{
    struct tile_memory m;
    memory_mass(p, scratch, &m);
    int64_t tiles = me_ceil_div(p->nk, ME_MASS_KEYS);
    int64_t j0 = task % tiles * ME_MASS_KEYS, keys = me_min(ME_MASS_KEYS, p->nk - j0);
    struct window w = {.b = task / tiles};
    for (int64_t j = 0; j < keys; j++)
        m.mass[j] = 0.0;
    for (w.h = 0; w.h < p->heads && !m.refused; w.h++)
        mass_head(p, &w, j0, keys, &m);
    struct me_matrix out = me_at(me_head(&p->mass, w.b, 0, 0), 0, j0);
    for (int64_t j = 0; j < keys && !m.refused; j++)
        element_store(out.data + j * out.col, ME_F32,
                      (float)(p->heads ? m.mass[j] / (double)p->heads : 0.0));
    return !m.refused;
}
