/* layer_memory.c: the tensors of a layer's case. */
#include "layer_case.h"

#include "strided.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { POISON = 0xFF };

void layer_lay_out(attn_tensor *t, enum lay lay)
{
    static const int order[2][4] = {{0, 1, 2, 3}, {0, 2, 3, 1}};
    const int last = lay == LAY_CHANNELS_LAST && t->rank == 4;
    int64_t step = 1;
    for (uint32_t i = t->rank; i-- > 0;) {
        const int axis = order[last][i];
        t->stride[axis] = step;
        step *= t->shape[axis];
        if (lay == LAY_GAPS && i == (t->rank == 4 ? 1 : t->rank - 1))
            step += 3;
    }
}

attn_tensor layer_tensor_open(struct layer_case *c, const char *name, attn_tensor t, int output)
{
    struct layer_block *b = &c->blocks[c->n_blocks];
    if (c->n_blocks == LAYER_BLOCKS || strided_open(&t, &b->guard, c->n_blocks % 4 == 3)) {
        c->short_of_memory = 1;
        return (attn_tensor){0};
    }
    guard_poison(&b->guard, POISON); /* what lies between elements is NaN */
    b->name = name;
    b->output = output;
    c->n_blocks++;
    if (output && strided_mark(&t, &b->guard, &b->elements))
        c->short_of_memory = 1;
    return t;
}

attn_tensor layer_tensor(uint32_t rank, int64_t a, int64_t b, int64_t d, int64_t e)
{
    const int64_t shape[4] = {a, b, d, e};
    attn_tensor t = {.device_type = ATTN_DEVICE_CPU,
                     .code = ATTN_CODE_FLOAT,
                     .bits = 32,
                     .lanes = 1,
                     .rank = rank};
    for (uint32_t i = 0; i < rank; i++)
        t.shape[i] = shape[i];
    layer_lay_out(&t, LAY_PACKED);
    return t;
}

static int next_index(const attn_tensor *t, int64_t i[4])
{
    for (uint32_t a = t->rank; a-- > 0;) {
        if (++i[a] < t->shape[a])
            return 1;
        i[a] = 0;
    }
    return 0;
}

void layer_fill(const attn_tensor *t, struct random *r, double center, double spread)
{
    int64_t i[4] = {0};
    if (t->rank)
        do
            tensor_set(t, i, center + spread * random_normal(r));
        while (next_index(t, i));
}

void layer_fill_mask(const attn_tensor *t, struct random *r)
{
    int64_t i[4] = {0};
    int dark = 0;
    if (t->rank)
        do {
            if (i[3] == 0)
                dark = random_percent(r, 10);
            tensor_set(t, i, dark || random_percent(r, 30) ? 0 : (double)random_between(r, 1, 255));
        } while (next_index(t, i));
}

void layer_case_poison(struct layer_case *c)
{
    for (int i = 0; i < c->n_blocks; i++)
        if (c->blocks[i].output)
            guard_poison(&c->blocks[i].guard, POISON);
}

int layer_case_overrun(const struct layer_case *c, char *text, size_t bytes)
{
    for (int i = 0; i < c->n_blocks; i++) {
        const struct layer_block *b = &c->blocks[i];
        if (!guard_intact(&b->guard))
            (void)snprintf(text, bytes, "outside of %s", b->name);
        else if (b->output && !strided_gaps_intact(&b->guard, b->elements, POISON))
            (void)snprintf(text, bytes, "between the elements of %s", b->name);
        else if (!b->output && guard_bits(&b->guard) != b->filled)
            (void)snprintf(text, bytes, "to %s, an input", b->name);
        else
            continue;
        return 1;
    }
    return 0;
}

int layer_case_same(const attn_tensor *a, const attn_tensor *b)
{
    int64_t i[4] = {0};
    do {
        const double x = tensor_get(a, i), y = tensor_get(b, i);
        if (memcmp(&x, &y, sizeof x) != 0)
            return 0;
    } while (next_index(a, i));
    return 1;
}

uint64_t layer_case_bits(const struct layer_case *c)
{
    uint64_t sum = 0;
    for (int i = 0; i < c->n_blocks; i++)
        if (c->blocks[i].output)
            sum = sum * 31 + guard_bits(&c->blocks[i].guard);
    return sum;
}

void layer_case_close(struct layer_case *c)
{
    for (int i = 0; i < c->n_blocks; i++) {
        guard_close(&c->blocks[i].guard);
        free(c->blocks[i].elements);
    }
    free(c->want);
    free(c->want_lse);
    free(c->want_mass);
    free(c->want_probs);
    memset(c, 0, sizeof *c);
}
