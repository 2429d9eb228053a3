/* op_memory.c: a case's memory between guard pages, and what is in it. */
#include "op_case.h"

#include <math.h>
#include <string.h>

static int64_t span(const attn_tensor *t)
{
    int64_t last = 0;
    for (uint32_t a = 0; a < t->rank; a++) {
        if (!t->shape[a])
            return 0;
        last += (t->shape[a] - 1) * t->stride[a];
    }
    return last + 1;
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

int op_case_fill(struct op_case *c, uint64_t data_seed)
{
    struct random r = random_for(data_seed ^ c->seed, c->index);
    for (int b = 0; b < BUF_SCRATCH; b++) {
        attn_tensor *t = c->tensors[b];
        if (!t->rank)
            continue;
        size_t element = tensor_element(t);
        /* Behind the data for most, before it for one in four; never better aligned than an
         * element or than was promised. */
        if (!c->buffers[b].base &&
            guard_open(&c->buffers[b], (size_t)span(t) * element,
                       t->align > element ? t->align : element, random_percent(&r, 25)))
            return -1;
        t->data = c->buffers[b].data;
        guard_poison(&c->buffers[b], 0xFF); /* gaps between elements are NaN */
        if (b <= BUF_V || b == BUF_BIAS || b == BUF_MASK)
            fill(c, (enum op_buffer)b, &r);
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

/* Gaps between an output's elements keep the poison: looked at through the guard's pattern outside
 * of the span, and here within it. */
static int gaps_intact(const struct op_case *c)
{
    const attn_tensor *t = &c->call.out;
    size_t element = tensor_element(t);
    int64_t row = t->shape[3] * (int64_t)element;
    int64_t pitch = t->stride[2] * (int64_t)element;
    if (t->stride[3] != 1 || t->shape[1] != 1 || t->shape[2] < 2 || pitch <= row)
        return 1;
    for (int64_t b = 0; b < t->shape[0]; b++)
        for (int64_t i = 0; i + 1 < t->shape[2]; i++) {
            const unsigned char *p =
                (const unsigned char *)t->data + b * t->stride[0] * (int64_t)element + i * pitch;
            for (int64_t x = row; x < pitch; x++)
                if (p[x] != c->poison)
                    return 0;
        }
    return 1;
}

const char *op_case_overrun(const struct op_case *c)
{
    for (int b = 0; b < BUF_COUNT; b++)
        if (c->buffers[b].base && !guard_intact(&c->buffers[b]))
            return op_buffer_name((enum op_buffer)b);
    if (c->buffers[BUF_SCRATCH].base && !gaps_intact(c))
        return "out (between its rows)";
    return NULL;
}

void op_case_close(struct op_case *c)
{
    for (int b = 0; b < BUF_COUNT; b++)
        guard_close(&c->buffers[b]);
}
