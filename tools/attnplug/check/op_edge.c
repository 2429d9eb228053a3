/* op_edge.c: the edges that the contract puts into words, each in a case of its own. */
#include "op_case.h"

#include <math.h>

enum edge {
    EDGE_NO_KEYS = 1,
    EDGE_NO_QUERIES,
    EDGE_NO_BATCH,
    EDGE_NO_HEADS,
    EDGE_ONE_KEY,
    EDGE_ONE_QUERY,
    EDGE_ONE_OF_EACH,
    EDGE_MASK_ROW,  /* row 0 sees nothing */
    EDGE_MASK_ALL,  /* no row does */
    EDGE_MASK_ONE,  /* each sees the first key alone */
    EDGE_BAND_NONE, /* no row sees anything */
    EDGE_BAND_SOME, /* the last ones see nothing */
    EDGE_BAND_WIDE, /* bounds that hide nothing, next to where sums of them overflow */
    EDGE_CAUSAL,
    EDGE_CAUSAL_END, /* more queries than keys: the first ones see nothing */
    EDGE_BIAS_ROW,   /* row 0 is minus infinity */
    EDGE_BIAS_KEY,   /* the first key is */
    EDGE_BIAS_HUGE,  /* the first key is ahead by more than exp takes */
    EDGE_MASK_CAUSAL,
};
_Static_assert((int)EDGE_MASK_CAUSAL == (int)EDGE_COUNT, "op_case.h counts them");

void op_edge_sizes(int number, struct sizes *s)
{
    switch ((enum edge)number) {
    case EDGE_NO_KEYS:
        s->Nk = 0;
        break;
    case EDGE_NO_QUERIES:
        s->Nq = 0;
        break;
    case EDGE_NO_BATCH:
        s->B = 0;
        break;
    case EDGE_NO_HEADS:
        s->H = 0;
        break;
    case EDGE_ONE_KEY:
        s->Nk = 1;
        break;
    case EDGE_ONE_QUERY:
        s->Nq = 1;
        break;
    case EDGE_ONE_OF_EACH:
        s->Nq = s->Nk = 1;
        break;
    case EDGE_CAUSAL_END:
        if (s->Nq <= s->Nk) {
            s->Nk = (s->Nq + 1) / 2;
        }
        break;
    default:
        break;
    }
}

static void band(attn_op_call *c, int64_t lo, int64_t hi)
{
    c->flags |= ATTN_CALL_BAND;
    c->band_lo = lo;
    c->band_hi = hi;
}

void op_edge_options(struct op_case *c, const struct sizes *s)
{
    attn_op_call *o = &c->call;
    switch ((enum edge)c->edge) {
    case EDGE_MASK_ROW:
    case EDGE_MASK_ALL:
    case EDGE_MASK_ONE:
    case EDGE_MASK_CAUSAL:
        o->mask = op_case_map(s, ATTN_CODE_UINT, 8);
        if (c->edge == EDGE_MASK_CAUSAL)
            band(o, INT64_MIN, 0);
        break;
    case EDGE_BAND_NONE:
        band(o, s->Nk, INT64_MAX);
        break;
    case EDGE_BAND_SOME:
        band(o, s->Nk / 2, INT64_MAX);
        break;
    case EDGE_BAND_WIDE:
        band(o, INT64_MIN + 1, INT64_MAX - 1);
        break;
    case EDGE_CAUSAL:
        band(o, INT64_MIN, 0);
        break;
    case EDGE_CAUSAL_END:
        band(o, INT64_MIN, s->Nk - s->Nq);
        break;
    case EDGE_BIAS_ROW:
    case EDGE_BIAS_KEY:
    case EDGE_BIAS_HUGE:
        o->bias = op_case_map(s, ATTN_CODE_FLOAT, 32);
        break;
    default:
        break;
    }
}

double op_edge_value(const struct op_case *c, int is_mask, const int64_t index[4], double value)
{
    switch ((enum edge)c->edge) {
    case EDGE_MASK_ROW:
    case EDGE_MASK_CAUSAL:
        return !is_mask ? value : index[2] == 0 ? 0 : 1;
    case EDGE_MASK_ALL:
        return is_mask ? 0 : value;
    case EDGE_MASK_ONE:
        return !is_mask ? value : index[3] == 0;
    case EDGE_BIAS_ROW:
        return index[2] == 0 ? -INFINITY : value;
    case EDGE_BIAS_KEY:
        return index[3] == 0 ? -INFINITY : value;
    case EDGE_BIAS_HUGE:
        return index[3] == 0 ? 1000 : value;
    default:
        return value;
    }
}
