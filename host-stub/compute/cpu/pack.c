/* pack.c: lays weights out in panels; keeps the panels of small weights and of those that few rows
 * use, where packing anew in each call would show. */
#include "pack.h"

#include <stdlib.h>

/* A weight of 4 MB packs in under a millisecond; used by 256 rows or less that is a tenth of the
 * product's time.  Together kept panels take at most the budget. */
#define KEEP_BYTES  (UINT64_C(4) << 20)
#define KEEP_ROWS   256
#define KEEP_BUDGET (UINT64_C(256) << 20)
#define SOURCES_MAX 8

struct pack_entry {
    struct packed packed;
    int64_t columns;
    bool gated;
    int32_t n_sources;
    struct pack_source sources[SOURCES_MAX];
    struct pack_entry *next;
};

struct packs {
    struct pack_entry *first;
    uint64_t bytes;
};

int64_t pack_depth(const struct pack_shape *shape)
{
    int64_t depth = 0;
    for (int32_t i = 0; i < shape->n_sources; ++i)
        depth += shape->sources[i].depth;
    return depth;
}

uint64_t pack_floats(const struct kernels *k, const struct pack_shape *shape)
{
    return (uint64_t)(gemm_padded(k, shape->columns, shape->gated) * pack_depth(shape));
}

struct pack_job {
    const struct cpu *cpu;
    const struct pack_shape *shape;
    float *panels;
    int64_t depth, padded;
};

/* Columns [first, first + n) of one source to the columns of a panel at dst; n <= fill. */
static void pack_columns(const struct kernels *k, const struct pack_source *s, int64_t first,
                         int64_t n, int64_t fill, float *dst, int64_t width)
{
    int64_t bytes = s->type.bits / 8;
    const char *data = (const char *)s->data + first * s->column_stride * bytes;
    if (n < 0)
        n = 0;
    if (tensor_f32(&s->type) && s->depth_stride == 1) {
        k->transpose((const float *)data, s->column_stride, n, fill, s->depth, dst, width);
        return;
    }
    float part[256];
    for (int64_t i = 0; i < fill; ++i) {
        for (int64_t d = 0; d < s->depth; d += 256) {
            int64_t here = s->depth - d < 256 ? s->depth - d : 256;
            const char *at = data + (i * s->column_stride + d * s->depth_stride) * bytes;
            if (i < n)
                rows_load(k, &s->type, at, s->depth_stride, here, part);
            for (int64_t j = 0; j < here; ++j)
                dst[(d + j) * width + i] = i < n ? part[j] : 0.0f;
        }
    }
}

static void pack_range(void *arg, int64_t begin, int64_t end, uint32_t thread)
{
    const struct pack_job *job = arg;
    const struct pack_shape *shape = job->shape;
    const struct kernels *k = job->cpu->kernels;
    const int64_t lanes = k->lanes, full = 2 * lanes;
    (void)thread;
    for (int64_t panel = begin; panel < end; ++panel) {
        float *dst = job->panels + panel * full * job->depth;
        int64_t width = job->padded - panel * full < full ? lanes : full;
        for (int32_t i = 0; i < shape->n_sources; ++i) {
            const struct pack_source *s = &shape->sources[i];
            int64_t first = panel * (shape->gated ? lanes : full);
            int64_t take = shape->gated ? lanes : width;
            int64_t n = shape->columns - first < take ? shape->columns - first : take;
            pack_columns(k, s, first, n, take, dst, width);
            if (shape->gated)
                pack_columns(k, s, shape->columns + first, n, lanes, dst + lanes, width);
            dst += s->depth * width;
        }
    }
}

void pack_panels(const struct cpu *c, const struct pack_shape *shape, float *panels)
{
    struct pack_job job = {.cpu = c,
                           .shape = shape,
                           .panels = panels,
                           .depth = pack_depth(shape),
                           .padded = gemm_padded(c->kernels, shape->columns, shape->gated)};
    int64_t full = 2 * c->kernels->lanes;
    parallel(c, (job.padded + full - 1) / full, 1, pack_range, &job);
}

void pack_bias(const struct cpu *c, const attn_tensor *bias, int64_t columns, bool gated,
               float *dst)
{
    const int64_t lanes = c->kernels->lanes;
    int64_t padded = gemm_padded(c->kernels, columns, gated);
    memset(dst, 0, (size_t)padded * sizeof *dst);
    if (!tensor_here(bias))
        return;
    int64_t bytes = bias->bits / 8, stride = bias->stride[0];
    if (!gated) {
        rows_load(c->kernels, bias, bias->data, stride, columns, dst);
        return;
    }
    for (int64_t at = 0; at < columns; at += lanes) {
        int64_t n = columns - at < lanes ? columns - at : lanes;
        const char *data = bias->data;
        rows_load(c->kernels, bias, data + at * stride * bytes, stride, n, dst + 2 * at);
        rows_load(c->kernels, bias, data + (columns + at) * stride * bytes, stride, n,
                  dst + 2 * at + lanes);
    }
}

/* -- packs that are kept ----------------------------------------------------------------------- */

static bool source_same(const struct pack_source *a, const struct pack_source *b)
{
    return a->data == b->data && a->type.code == b->type.code && a->type.bits == b->type.bits &&
           a->column_stride == b->column_stride && a->depth_stride == b->depth_stride &&
           a->depth == b->depth;
}

static bool entry_is(const struct pack_entry *e, const struct pack_shape *shape)
{
    if (e->packed.forgotten || e->columns != shape->columns || e->gated != shape->gated ||
        e->n_sources != shape->n_sources)
        return false;
    for (int32_t i = 0; i < e->n_sources; ++i) {
        if (!source_same(&e->sources[i], &shape->sources[i]))
            return false;
    }
    return true;
}

static struct pack_entry *entry_create(struct cpu *c, const struct pack_shape *shape,
                                       uint64_t bytes)
{
    struct pack_entry *e = calloc(1, sizeof *e);
    float *panels = aligned_alloc(64, (bytes + 63) & ~UINT64_C(63));
    if (!e || !panels) {
        free(e);
        free(panels);
        return NULL;
    }
    pack_panels(c, shape, panels);
    *e = (struct pack_entry){.packed = {.references = 1, .bytes = bytes, .panels = panels},
                             .columns = shape->columns,
                             .gated = shape->gated,
                             .n_sources = shape->n_sources};
    memcpy(e->sources, shape->sources, (size_t)shape->n_sources * sizeof e->sources[0]);
    return e;
}

static struct pack_entry *entry_lookup(struct packs *packs, const struct pack_shape *shape)
{
    struct pack_entry *e = packs->first;
    while (e && !entry_is(e, shape))
        e = e->next;
    if (e)
        ++e->packed.references;
    return e;
}

struct packed *packed_find(struct cpu *c, const struct pack_shape *shape, int64_t rows)
{
    uint64_t bytes = pack_floats(c->kernels, shape) * sizeof(float);
    if (shape->n_sources > SOURCES_MAX || (rows > KEEP_ROWS && bytes > KEEP_BYTES))
        return NULL;
    pthread_mutex_lock(&c->lock);
    struct pack_entry *e = entry_lookup(c->packs, shape);
    bool fits = c->packs->bytes + bytes <= KEEP_BUDGET;
    pthread_mutex_unlock(&c->lock);
    if (e || !fits)
        return e ? &e->packed : NULL;
    struct pack_entry *made = entry_create(c, shape, bytes);
    if (!made)
        return NULL;
    pthread_mutex_lock(&c->lock);
    made->next = c->packs->first;
    c->packs->first = made;
    c->packs->bytes += bytes;
    pthread_mutex_unlock(&c->lock);
    compute_took(&c->base, bytes);
    return &made->packed;
}

/* Panels that nobody uses stay until their weight goes: another pass may want them. */
static void entries_sweep(struct cpu *c)
{
    struct packs *packs = c->packs;
    struct pack_entry **at = &packs->first;
    while (*at) {
        struct pack_entry *e = *at;
        if (!e->packed.forgotten || e->packed.references) {
            at = &e->next;
            continue;
        }
        *at = e->next;
        packs->bytes -= e->packed.bytes;
        compute_gave(&c->base, e->packed.bytes);
        free(e->packed.panels);
        free(e);
    }
}

void packed_release(struct cpu *c, struct packed *p)
{
    pthread_mutex_lock(&c->lock);
    --p->references;
    entries_sweep(c);
    pthread_mutex_unlock(&c->lock);
}

/* A source that begins within the memory; panels of a slice begin inside their weight. */
static bool source_within(const struct pack_source *s, const void *data, uint64_t bytes)
{
    uintptr_t at = (uintptr_t)s->data, from = (uintptr_t)data;
    return at >= from && at - from < bytes;
}

void cpu_weights_forget(struct cpu *c, const void *data, uint64_t bytes)
{
    pthread_mutex_lock(&c->lock);
    for (struct pack_entry *e = c->packs->first; e; e = e->next) {
        for (int32_t i = 0; i < e->n_sources; ++i)
            if (source_within(&e->sources[i], data, bytes))
                e->packed.forgotten = true;
    }
    entries_sweep(c);
    pthread_mutex_unlock(&c->lock);
}

attn_status cpu_weights_open(struct cpu *c, attn_error *err)
{
    c->packs = calloc(1, sizeof *c->packs);
    return c->packs ? ATTN_OK : attn_fail(err, ATTN_NOMEM, "no memory for the list of packs");
}

void cpu_weights_close(struct cpu *c)
{
    if (!c->packs)
        return;
    for (struct pack_entry *e = c->packs->first, *next; e; e = next) {
        next = e->next;
        free(e->packed.panels);
        free(e);
    }
    free(c->packs);
}
