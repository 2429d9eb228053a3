/* op_memory.c: a case's memory between guard pages, and what is in it. */
#include "op_layout.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double draw_value(struct random *r, enum op_buffer b)
{
    if (b == BUF_MASK)
        return random_percent(r, 70) ? (double)random_between(r, 1, 255) : 0;
    if (b == BUF_BIAS && random_percent(r, 5))
        return -INFINITY;
    return random_normal(r);
}

static void fill(struct op_case *c, enum op_buffer b, struct random *r)
{
    attn_tensor *t = c->tensors[b];
    int64_t n[4] = {1, 1, 1, 1}, i[4];
    for (uint32_t a = 0; a < t->rank; a++)
        n[a] = t->stride[a] || !t->shape[a] ? t->shape[a] : 1;
    for (i[0] = 0; i[0] < n[0]; i[0]++)
        for (i[1] = 0; i[1] < n[1]; i[1]++)
            for (i[2] = 0; i[2] < n[2]; i[2]++) {
                int dark = b == BUF_MASK && random_percent(r, 10); /* a row that sees nothing */
                for (i[3] = 0; i[3] < n[3]; i[3]++) {
                    double value = dark ? 0 : draw_value(r, b);
                    if (b == BUF_MASK || b == BUF_BIAS)
                        value = op_edge_value(c, b == BUF_MASK, i, value);
                    tensor_set(t, i, value);
                }
            }
}

static int is_output(int b)
{
    return b == BUF_OUT || b == BUF_LSE || b == BUF_KEY_MASS || b == BUF_PROBS;
}

/* The unreadable page is behind the memory for most, before it for one in four. */
static int open_buffer(struct op_case *c, enum op_buffer b, struct random *r)
{
    if (strided_open(c->tensors[b], &c->buffers[b], random_percent(r, 25)))
        return -1;
    return is_output(b) ? strided_mark(c->tensors[b], &c->buffers[b], &c->elements[b]) : 0;
}

int op_case_fill(struct op_case *c, uint64_t data_seed)
{
    struct random r = random_for(data_seed ^ c->seed, c->index);
    for (int b = 0; b < BUF_SCRATCH; b++) {
        if (!c->tensors[b]->rank)
            continue;
        if (!c->buffers[b].base && open_buffer(c, (enum op_buffer)b, &r))
            return -1;
        guard_poison(&c->buffers[b], 0xFF); /* gaps between elements are NaN */
        if (is_output(b))
            continue;
        fill(c, (enum op_buffer)b, &r);
        c->inputs[b] = guard_bits(&c->buffers[b]);
    }
    return 0;
}

void op_case_poison(struct op_case *c, unsigned char poison)
{
    static const enum op_buffer written[] = {BUF_OUT, BUF_LSE, BUF_KEY_MASS, BUF_PROBS,
                                             BUF_SCRATCH};
    c->poison = poison;
    for (size_t i = 0; i < sizeof written / sizeof *written; i++)
        if (c->buffers[written[i]].base)
            guard_poison(&c->buffers[written[i]], poison);
}

int op_case_scratch(struct op_case *c, uint64_t bytes, unsigned char poison)
{
    guard_close(&c->buffers[BUF_SCRATCH]);
    if (guard_open(&c->buffers[BUF_SCRATCH], (size_t)bytes, 256, 0))
        return -1;
    c->call.scratch = c->buffers[BUF_SCRATCH].data;
    c->call.scratch_bytes = bytes;
    op_case_poison(c, poison);
    return 0;
}

int op_case_overrun(const struct op_case *c, char *text, size_t bytes)
{
    for (int b = 0; b < BUF_COUNT; b++) {
        const char *name = op_buffer_name((enum op_buffer)b);
        if (!c->buffers[b].base)
            continue;
        if (!guard_intact(&c->buffers[b]))
            (void)snprintf(text, bytes, "outside of %s", name);
        else if (b < BUF_SCRATCH && is_output(b) &&
                 !strided_gaps_intact(&c->buffers[b], c->elements[b], c->poison))
            (void)snprintf(text, bytes, "between the elements of %s", name);
        else if (b < BUF_SCRATCH && !is_output(b) && guard_bits(&c->buffers[b]) != c->inputs[b])
            (void)snprintf(text, bytes, "to %s, an input", name);
        else
            continue;
        return 1;
    }
    return 0;
}

void op_case_close(struct op_case *c)
{
    for (int b = 0; b < BUF_COUNT; b++)
        guard_close(&c->buffers[b]);
    for (int b = 0; b < BUF_SCRATCH; b++) {
        free(c->elements[b]);
        c->elements[b] = NULL;
    }
}
