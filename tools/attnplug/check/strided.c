#include "strided.h"

#include <stdlib.h>
#include <string.h>

/* Elements from the lowest address to element 0. */
static int64_t elements_before(const attn_tensor *t)
{
    int64_t n = 0;
    for (uint32_t a = 0; a < t->rank; a++)
        n += t->shape[a] > 1 && t->stride[a] < 0 ? (t->shape[a] - 1) * -t->stride[a] : 0;
    return n;
}

/* From element 0 to behind the highest address; 0 where there is no element. */
static int64_t elements_behind(const attn_tensor *t)
{
    int64_t n = 1;
    for (uint32_t a = 0; a < t->rank; a++) {
        if (!t->shape[a])
            return 0;
        n += t->stride[a] > 0 ? (t->shape[a] - 1) * t->stride[a] : 0;
    }
    return n;
}

void strided_reverse(struct random *r, attn_tensor *t)
{
    const int64_t axes = random_between(r, 1, (1 << t->rank) - 1);
    for (uint32_t a = 0; a < t->rank; a++)
        if (axes & (1 << a))
            t->stride[a] = -t->stride[a];
    while (t->align > 1 && elements_before(t) * (int64_t)tensor_element(t) % t->align != 0)
        t->align /= 2;
}

int strided_is_reversed(const attn_tensor *t)
{
    return elements_before(t) > 0;
}

int strided_open(attn_tensor *t, struct guard *g, int before)
{
    const size_t element = tensor_element(t), behind = (size_t)elements_behind(t) * element;
    const size_t skipped = behind ? (size_t)elements_before(t) * element : 0;
    if (guard_open(g, skipped + behind, t->align > element ? t->align : element, before))
        return -1;
    t->data = g->data + skipped;
    return 0;
}

int strided_mark(const attn_tensor *t, const struct guard *g, unsigned char **elements)
{
    const size_t element = tensor_element(t);
    int64_t n[4] = {1, 1, 1, 1}, i[4];
    for (uint32_t a = 0; a < t->rank; a++)
        n[a] = t->shape[a];
    *elements = NULL;
    if ((size_t)(n[0] * n[1] * n[2] * n[3]) * element == g->bytes)
        return 0;
    *elements = calloc(g->bytes, 1);
    if (!*elements)
        return -1;
    for (i[0] = 0; i[0] < n[0]; i[0]++)
        for (i[1] = 0; i[1] < n[1]; i[1]++)
            for (i[2] = 0; i[2] < n[2]; i[2]++)
                for (i[3] = 0; i[3] < n[3]; i[3]++) {
                    int64_t at = elements_before(t);
                    for (uint32_t a = 0; a < t->rank; a++)
                        at += i[a] * t->stride[a];
                    memset(*elements + (size_t)at * element, 1, element);
                }
    return 0;
}

int strided_gaps_intact(const struct guard *g, const unsigned char *elements, unsigned char poison)
{
    for (size_t i = 0; elements && i < g->bytes; i++)
        if (!elements[i] && g->data[i] != poison)
            return 0;
    return 1;
}
