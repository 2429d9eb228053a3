/* What the tile unit does, as a list of steps that other work can be put between: a part of
 * memory_efficient_amx.c. */

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

/* Before so many pieces: the steps that are their share. */
static ALWAYS_INLINE void stream_share(struct stream *t, int pieces)
{
    t->due += t->pace * (uint64_t)pieces;
    stream_until(t, (int64_t)(t->due >> 16));
}

static void stream_finish(struct stream *t)
{
    stream_until(t, t->n_scores + t->n_outputs);
}
