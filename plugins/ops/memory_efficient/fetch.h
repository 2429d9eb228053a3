/* What is needed next, fetched into the second-level cache a few lines at a time between pieces of
 * other work: a core has few misses under way at once, and more would stall it.  Hardware foresees
 * none of this: of a bias or a mask, as large as the scores and read once, a window needs a few
 * lines of many rows, and the rows of the next tile of keys and values are far away. */

#define FETCHES 2

/* Of a row of a window only the first lines are asked for: the streamer of the second-level cache
 * has seen the row by then and brings the rest without a line fill buffer, which the tile unit's
 * loads want too.  To ask for all 16 lines of an fp32 bias made the whole call 8 % longer. */
#define FETCH_LINES 8

struct fetch {
    struct {
        const char *at;
        int64_t row, rows, lines;
    } part[FETCHES];
    int64_t line, share; /* of the present row; lines to fetch at a time */
};

/* `cols` columns of `rows` rows. */
static void fetch_add(struct fetch *f, int i, struct me_matrix m, int64_t rows, int64_t cols)
{
    int64_t size = me_type_size(m.type), before = (int64_t)((uintptr_t)m.data % 64);
    if (!m.data || m.row == 0 || m.col != size)
        return;
    f->part[i].at = m.data - before;
    f->part[i].row = m.row;
    f->part[i].rows = rows;
    f->part[i].lines = me_ceil_div(before + cols * size, 64);
}

/* Cuts it into so many pieces. */
static void fetch_cut(struct fetch *f, int64_t pieces)
{
    int64_t lines = 0;
    for (int i = 0; i < FETCHES; i++)
        lines += f->part[i].rows * f->part[i].lines;
    f->share = me_ceil_div(lines, me_max(pieces, 1));
}

static void fetch_add_window(struct fetch *f, int i, const struct me_view *t,
                             const struct window *w)
{
    fetch_add(f, i, me_at(me_head(t, w->b, w->h, w->i0), 0, w->j0), w->rows, w->keys);
    f->part[i].lines = me_min(f->part[i].lines, FETCH_LINES);
}

/* The bias and the mask of a window. */
static void fetch_window(struct fetch *f, const struct me_problem *p, const struct window *w,
                         int64_t pieces)
{
    *f = (struct fetch){0};
    if (!p->bias.data && !p->mask.data)
        return;
    fetch_add_window(f, 0, &p->bias, w);
    fetch_add_window(f, 1, &p->mask, w);
    fetch_cut(f, pieces);
}

static ALWAYS_INLINE void fetch_share(struct fetch *f)
{
    for (int64_t n = f->share; n > 0; n--) {
        int i = f->part[0].rows > 0 ? 0 : 1;
        if (f->part[i].rows <= 0) {
            f->share = 0;
            return;
        }
        __builtin_prefetch(f->part[i].at + 64 * f->line, 0, 2);
        if (++f->line == f->part[i].lines) {
            f->line = 0;
            f->part[i].at += f->part[i].row;
            f->part[i].rows--;
        }
    }
}
