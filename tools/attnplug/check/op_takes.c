#include "op_takes.h"

#include "op_case.h"

#include <stddef.h>

const char op_takes_words[] =
    "D 32, 40, 64, 80, 96, 128, 160, 256; Nq x Nk 64 x 64, 128 x 128, 256 x 256, 77 x 77, 256 x 77;"
    " contiguous as [B,H,N,D] and as [B,N,H,D]";
static const int64_t dims[] = {32, 40, 64, 80, 96, 128, 160, 256};
static const int64_t lengths[][2] = {{64, 64}, {128, 128}, {256, 256}, {77, 77}, {256, 77}};
static const uint64_t dtypes_known[] = {ATTN_DTYPE_F32, ATTN_DTYPE_F16, ATTN_DTYPE_BF16,
                                        ATTN_DTYPE_F64};

enum {
    DIMS = sizeof dims / sizeof *dims,
    LENGTHS = sizeof lengths / sizeof *lengths,
    DTYPES = sizeof dtypes_known / sizeof *dtypes_known,
    ALL = DIMS * LENGTHS * DTYPES * 2
};

static struct plain_shape taken[ALL];
static int n_taken, n_asked;

static struct plain_shape shape_of(int i)
{
    const int64_t *n = lengths[i / 2 % LENGTHS];
    return (struct plain_shape){n[0], n[1], dims[i / 2 / LENGTHS % DIMS],
                                dtypes_known[i / 2 / LENGTHS / DIMS], i % 2};
}

void op_takes_learn(const struct check *k, attn_op *op)
{
    for (int i = 0; !n_asked && i < ALL; i++) {
        const struct plain_shape shape = shape_of(i);
        struct op_case c;
        if (!(k->op->head.dtypes & shape.dtype))
            continue;
        op_case_plain(&c, &shape, 2, 2);
        if (k->op->supports(op, &c.call, NULL) == ATTN_OK)
            taken[n_taken++] = shape;
    }
    n_asked = 1;
}

int op_takes_count(void)
{
    return n_taken;
}

const struct plain_shape *op_takes_pick(struct random *r, uint64_t dtypes)
{
    const struct plain_shape *best = NULL;
    int n = 0;
    for (int i = 0; i < n_taken; i++)
        n += (taken[i].dtype & dtypes) != 0;
    for (int tries = 0; n && tries < 3; tries++) {
        int64_t left = random_between(r, 0, n - 1);
        const struct plain_shape *s = taken;
        while (!(s->dtype & dtypes) || left--)
            s++;
        if (!best || s->Nq * s->Nk < best->Nq * best->Nk)
            best = s;
    }
    return best;
}
