/* op_memory.c: a case's memory between guard pages, and what is in it. */
#include "op_layout.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int is_empty(const attn_tensor *t)
{
    for (uint32_t a = 0; a < t->rank; a++)
        if (!t->shape[a])
            return 1;
    return 0;
}

/* Bytes from the lowest address to behind the highest. */
static size_t span(const attn_tensor *t)
{
    return is_empty(t) ? 0 : (size_t)(layout_before(t) + layout_behind(t)) * tensor_element(t);
}

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

/* Which bytes of an output are its elements'; NULL where all are.  0, or -1 for no memory. */
static int note_elements(struct op_case *c, enum op_buffer b)
{
    const attn_tensor *t = c->tensors[b];
    const struct guard *g = &c->buffers[b];
    const size_t element = tensor_element(t);
    int64_t n[4] = {1, 1, 1, 1}, i[4];
    for (uint32_t a = 0; a < t->rank; a++)
        n[a] = t->shape[a];
    if ((size_t)(n[0] * n[1] * n[2] * n[3]) * element == g->bytes)
        return 0;
    unsigned char *mark = c->elements[b] = calloc(g->bytes, 1);
    if (!mark)
        return -1;
    for (i[0] = 0; i[0] < n[0]; i[0]++)
        for (i[1] = 0; i[1] < n[1]; i[1]++)
            for (i[2] = 0; i[2] < n[2]; i[2]++)
                for (i[3] = 0; i[3] < n[3]; i[3]++) {
                    int64_t at = layout_before(t);
                    for (uint32_t a = 0; a < t->rank; a++)
                        at += i[a] * t->stride[a];
                    memset(mark + (size_t)at * element, 1, element);
                }
    return 0;
}

static int is_output(int b)
{
    return b == BUF_OUT || b == BUF_LSE || b == BUF_KEY_MASS || b == BUF_PROBS;
}

/* Memory behind whose end is nothing, or for one in four before its beginning; element 0 never
 * better aligned than an element or than was promised. */
static int open_buffer(struct op_case *c, enum op_buffer b, struct random *r)
{
    attn_tensor *t = c->tensors[b];
    const size_t element = tensor_element(t);
    if (guard_open(&c->buffers[b], span(t), t->align > element ? t->align : element,
                   random_percent(r, 25)))
        return -1;
    t->data = c->buffers[b].data + (is_empty(t) ? 0 : (size_t)layout_before(t) * element);
    return is_output(b) ? note_elements(c, b) : 0;
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

/* Gaps between an output's elements keep the poison. */
static int gaps_intact(const struct op_case *c, int b)
{
    const struct guard *g = &c->buffers[b];
    for (size_t i = 0; c->elements[b] && i < g->bytes; i++)
        if (!c->elements[b][i] && g->data[i] != c->poison)
            return 0;
    return 1;
}

int op_case_overrun(const struct op_case *c, char *text, size_t bytes)
{
    for (int b = 0; b < BUF_COUNT; b++) {
        const char *name = op_buffer_name((enum op_buffer)b);
        if (!c->buffers[b].base)
            continue;
        if (!guard_intact(&c->buffers[b]))
            (void)snprintf(text, bytes, "outside of %s", name);
        else if (b < BUF_SCRATCH && is_output(b) && !gaps_intact(c, b))
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
