/* What the tile unit does, as a list of steps that other work can be put between: a part of
 * memory_efficient_amx.c. */

/* One step of two rows of tiles by two columns of tiles; offsets in bfloat16 numbers. */
struct step {
    int32_t left, left2, right, right2; /* right2 < 0: one column of tiles */
    int32_t column;                     /* of the sums, in floats */
    uint32_t what;
};

enum {
    STEP_FIRST = 1, /* sums start at zero or, scores alone, at the bias */
    STEP_LEFT = 2,  /* the left tiles, the right tiles are not those of the step before */
    STEP_RIGHT = 4,
    STEP_ODD = 8, /* one column of tiles: sums in the second column's place, for every second step,
                     so that four sums run side by side; output_add adds them */
    STEP_LAST = 16, /* sums go to memory */
};

/* Which tiles differ from those of the step before, the first of its sums excepted. */
static uint32_t step_loads(const struct step *at)
{
    if (at->what & STEP_FIRST)
        return STEP_LEFT | STEP_RIGHT;
    return (at->left != at[-1].left ? STEP_LEFT : 0) | (at->right != at[-1].right ? STEP_RIGHT : 0);
}

/* Steps of 32 queries by `keys` keys are written at `at`. */
static struct step *steps_scores(const struct plan *plan, int64_t keys, struct step *at)
{
    const struct recipe *recipe = plan->recipe;
    for (int64_t j = 0; j < keys; j += 32)
        for (int64_t i = 0; i < plan->steps; i++, at++) {
            int64_t t = i % recipe->terms, c = i / recipe->terms;
            int64_t left = recipe->left[t] * plan->whole + c;
            int64_t right = recipe->right[t] * plan->whole + c;
            if (c >= plan->whole) {
                int64_t over = i - recipe->terms * plan->whole;
                left = recipe->left_parts * plan->whole + over;
                right = recipe->right_parts * plan->whole + over;
            }
            at->left = (int32_t)left * TILE;
            at->left2 = at->left + (int32_t)plan->left_tiles * TILE;
            at->right = (int32_t)(j / 16 * plan->right_tiles + right) * TILE;
            at->right2 = keys - j > 16 ? at->right + (int32_t)plan->right_tiles * TILE : -1;
            at->column = (int32_t)j;
            at->what = (i == 0 ? STEP_FIRST : 0) | (i == plan->steps - 1 ? STEP_LAST : 0);
            at->what |= step_loads(at);
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
                int64_t column = c / 16 * recipe->right_parts + recipe->right[t];
                int odd = (int)(k * recipe->terms + t) & 1;
                at->left = (int32_t)(recipe->left[t] * KEY_STEPS + k) * TILE;
                at->left2 = at->left + recipe->left_parts * KEY_STEPS * TILE;
                at->right = (int32_t)(column * KEY_STEPS + k) * TILE;
                at->right2 = dv - c > 16 ? at->right + recipe->right_parts * KEY_STEPS * TILE : -1;
                at->column = (int32_t)c;
                at->what = k == 0 && t == 0 ? STEP_FIRST : 0;
                at->what |= k == key_steps - 1 && t == recipe->terms - 1 ? STEP_LAST : 0;
                at->what |= step_loads(at) | (at->right2 < 0 && odd ? STEP_ODD : 0);
            }
    return at;
}

/* What sums start at: fp32, rows `row` bytes apart; NULL for zero. */
struct start {
    const char *data;
    int64_t row;
};

static ALWAYS_INLINE void step_start(const struct step *step, struct start start)
{
    if (start.data) {
        const char *at = start.data + step->column * (int64_t)sizeof(float);
        _tile_loadd(0, at, start.row);
        _tile_loadd(1, at + 64, start.row);
        _tile_loadd(2, at + 16 * start.row, start.row);
        _tile_loadd(3, at + 16 * start.row + 64, start.row);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
}

static ALWAYS_INLINE void step_run(const struct step *step, const uint16_t *left,
                                   const uint16_t *right, struct start start, float *out,
                                   int64_t out_row)
{
    if (step->what & STEP_FIRST)
        step_start(step, start);
    if (step->what & STEP_LEFT) {
        _tile_loadd(4, left + step->left, 64);
        _tile_loadd(5, left + step->left2, 64);
    }
    if (step->what & STEP_RIGHT)
        _tile_loadd(6, right + step->right, 64);
    if (step->what & STEP_ODD) {
        _tile_dpbf16ps(1, 4, 6);
        _tile_dpbf16ps(3, 5, 6);
    } else {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(2, 5, 6);
    }
    if (step->right2 >= 0) {
        if (step->what & STEP_RIGHT)
            _tile_loadd(7, right + step->right2, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(3, 5, 7);
    }
    if (step->what & STEP_LAST) {
        float *at = out + step->column;
        _tile_stored(0, at, out_row * sizeof *at);
        _tile_stored(1, at + 16, out_row * sizeof *at);
        _tile_stored(2, at + 16 * out_row, out_row * sizeof *at);
        _tile_stored(3, at + 16 * out_row + 16, out_row * sizeof *at);
    }
}

/* Work of the tile unit that runs beside the vector unit's: scores of the next microtile, then the
 * output of the one before. */
struct stream {
    const struct step *scores, *outputs;
    int64_t n_scores, n_outputs, done;
    uint64_t pace, due; /* steps for a piece of the vector unit's work, and due by now: 16.16 */
    const uint16_t *queries, *keys, *probabilities, *values;
    struct start bias; /* of the scores */
    float *s, *sums;
    int64_t sums_row; /* floats from one row of sums to the next */
};

static ALWAYS_INLINE void stream_until(struct stream *t, int64_t end)
{
    for (; t->done < end; t->done++) {
        if (t->done < t->n_scores)
            step_run(&t->scores[t->done], t->queries, t->keys, t->bias, t->s, ME_KEYS);
        else
            step_run(&t->outputs[t->done - t->n_scores], t->probabilities, t->values,
                     (struct start){0}, t->sums, t->sums_row);
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
