#include "fake_compute.h"

#include "fake_math.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* -- memory ------------------------------------------------------------------------------------ */

static int same_shape(const attn_tensor *a, const attn_tensor *b, uint32_t first)
{
    if (a->rank != b->rank)
        return 0;
    for (uint32_t i = 0; i < first && i < a->rank; i++)
        if (a->shape[i] != b->shape[i])
            return 0;
    return 1;
}

/* First and last byte that a view can touch. */
static void extent(const attn_tensor *t, uintptr_t *low, uintptr_t *high)
{
    intptr_t first = 0, last = 0, bytes = t->bits / 8;
    for (uint32_t i = 0; i < t->rank; i++) {
        intptr_t reach = (intptr_t)(t->stride[i] * (t->shape[i] - 1)) * bytes;
        if (reach < 0)
            first += reach;
        else
            last += reach;
    }
    *low = (uintptr_t)t->data + (uintptr_t)first;
    *high = (uintptr_t)t->data + (uintptr_t)last + (uintptr_t)bytes;
}

static int empty(const attn_tensor *t)
{
    for (uint32_t i = 0; i < t->rank; i++)
        if (t->shape[i] == 0)
            return 1;
    return t->rank == 0;
}

static int overlaps(const attn_tensor *a, const attn_tensor *b)
{
    uintptr_t a_low, a_high, b_low, b_high;
    if (empty(a) || empty(b))
        return 0;
    extent(a, &a_low, &a_high);
    extent(b, &b_low, &b_high);
    return a_low < b_high && b_low < a_high;
}

/* -- rules ------------------------------------------------------------------------------------- */

__attribute__((format(printf, 3, 4))) static attn_status fail(attn_work *w, attn_status status,
                                                              const char *format, ...)
{
    if (w->status == ATTN_OK) {
        w->status = status;
        if (w->err && w->err->text) {
            va_list args;
            char text[FAKE_TEXT];
            va_start(args, format);
            (void)vsnprintf(text, sizeof text, format, args);
            va_end(args);
            (void)snprintf(w->err->text, w->err->capacity, "%s%s%s", w->name ? w->name : "",
                           w->name ? ": " : "", text);
        }
    }
    return w->status;
}

static const char *const kind_names[] = {"linear", "norm", "attend", "combine", "copy", "fill"};

static void step_tensor(struct fake_step *s, int slot, const attn_tensor *t)
{
    if (!t || t->rank == 0)
        return;
    s->t[slot] = *t;
    s->t[slot].data = NULL;
    for (uint32_t i = t->rank; i < 4; i++)
        s->t[slot].shape[i] = s->t[slot].stride[i] = 0;
}

/* Files a dry call, or finds the dry call that this real one repeats. */
static attn_status planned(attn_work *w, const struct fake_step *s)
{
    struct fake_compute *fake = w->host;
    const char *name = kind_names[s->kind];
    fake->count[s->kind]++;
    if (w->flags & ATTN_WORK_DRY) {
        if (fake->n_steps == FAKE_STEPS)
            return fail(w, ATTN_INTERNAL, "fake: more than %d calls", FAKE_STEPS);
        fake->steps[fake->n_steps++] = *s;
        return ATTN_OK;
    }
    for (; fake->cursor < fake->n_steps; fake->cursor++) {
        if (memcmp(&fake->steps[fake->cursor], s, sizeof *s) == 0) {
            fake->cursor++;
            return ATTN_OK;
        }
        if (!fake->may_skip)
            break;
    }
    return fail(w, ATTN_INTERNAL, "fake: %s that the dry run did not plan at its place %" PRIu32,
                name, fake->cursor);
}

/* Tensors of a call: no data in a dry run, data in a real one. */
static attn_status data_check(attn_work *w, const char *what, const attn_tensor *t)
{
    if (!t || t->rank == 0)
        return ATTN_OK;
    if (t->rank > 4)
        return fail(w, ATTN_INVALID, "fake: %s has rank %" PRIu32, what, t->rank);
    int dry = (w->flags & ATTN_WORK_DRY) != 0;
    if (dry && t->data)
        return fail(w, ATTN_INTERNAL, "fake: %s has data in a dry run", what);
    if (!dry && !t->data && !empty(t))
        return fail(w, ATTN_INTERNAL, "fake: %s has no data", what);
    if (!dry && t->align > 1 && (uintptr_t)t->data % t->align != 0)
        return fail(w, ATTN_INTERNAL, "fake: %s is not aligned to %" PRIu32 " as it promises", what,
                    t->align);
    if ((t->bits != 32 || t->code != ATTN_CODE_FLOAT) && t->code != ATTN_CODE_UINT)
        return fail(w, ATTN_UNSUPPORTED, "fake: %s is not fp32", what);
    return ATTN_OK;
}

/* -- operations -------------------------------------------------------------------------------- */

static attn_status fake_alloc(void *ctx, uint64_t bytes, void **data, attn_error *err)
{
    struct fake_compute *fake = ctx;
    fake->allocs++;
    if (fake->refuse_alloc_at && fake->allocs == fake->refuse_alloc_at) {
        if (err && err->text)
            (void)snprintf(err->text, err->capacity, "fake: no memory for %" PRIu64 " bytes",
                           bytes);
        return ATTN_NOMEM;
    }
    uint64_t padded = (bytes + 255u) & ~UINT64_C(255);
    *data = aligned_alloc(256, padded ? padded : 256);
    if (!*data)
        return ATTN_NOMEM;
    memset(*data, 0xff, padded); /* NaN */
    fake->live++;
    return ATTN_OK;
}

static void fake_free(void *ctx, void *data)
{
    struct fake_compute *fake = ctx;
    if (data)
        fake->live--;
    free(data);
}

static attn_status fake_linear(attn_work *w, float alpha, const attn_tensor *x,
                               const attn_linear *l, float beta, const attn_tensor *c,
                               const attn_tensor *y)
{
    if (w->status != ATTN_OK)
        return w->status;
    struct fake_compute *fake = w->host;
    struct fake_step s;
    memset(&s, 0, sizeof s);
    s.kind = FAKE_LINEAR;
    s.alpha = alpha;
    s.beta = beta;
    s.weights = l->weight.data;
    step_tensor(&s, 0, x);
    step_tensor(&s, 1, y);
    step_tensor(&s, 2, beta != 0 ? c : NULL);
    step_tensor(&s, 3, &l->weight);
    if (l->weight.rank != 2 || x->rank != y->rank || !same_shape(x, y, x->rank - 1) ||
        x->shape[x->rank - 1] != l->weight.shape[1] || y->shape[y->rank - 1] != l->weight.shape[0])
        return fail(w, ATTN_INVALID,
                    "fake: linear [%" PRId64 ", %" PRId64 "] on %" PRId64 " channels",
                    l->weight.shape[0], l->weight.shape[1], x->shape[x->rank - 1]);
    if (beta != 0 && (!c || !same_shape(c, y, 4)))
        return fail(w, ATTN_INVALID, "fake: linear with beta wants c of y's shape");
    if (data_check(w, "x", x) != ATTN_OK || data_check(w, "y", y) != ATTN_OK ||
        data_check(w, "c", beta != 0 ? c : NULL) != ATTN_OK || planned(w, &s) != ATTN_OK)
        return w->status;
    if (w->flags & ATTN_WORK_DRY) {
        fake->terms_seen += l->n_terms;
        return ATTN_OK;
    }
    for (uint32_t i = 0; i < l->n_terms; i++)
        if (l->terms[i].slot >= w->n_scales)
            return fail(w, ATTN_INVALID, "fake: slot %" PRIu32 " of %" PRIu32, l->terms[i].slot,
                        w->n_scales);
    if (overlaps(x, y) || (beta != 0 && c->data != y->data && overlaps(c, y)))
        return fail(w, ATTN_INTERNAL, "fake: linear writes over its input");
    fake_linear_run(w, alpha, x, l, beta, c, y);
    return ATTN_OK;
}

/* [B, C, H, W] as [B, H * W, C]; the fake wants pixels in order. */
static attn_tensor tokens_of(const attn_tensor *t)
{
    attn_tensor v = *t;
    v.rank = 3;
    v.shape[1] = t->shape[2] * t->shape[3];
    v.shape[2] = t->shape[1];
    v.stride[1] = t->shape[3] > 1 ? t->stride[3] : t->stride[2];
    v.stride[2] = t->stride[1];
    return v;
}

static attn_status fake_norm(attn_work *w, const attn_norm *n, const attn_tensor *x,
                             const attn_tensor *zq, const attn_tensor *y)
{
    if (w->status != ATTN_OK)
        return w->status;
    int spatial = n->kind == ATTN_NORM_SPATIAL;
    struct fake_step s;
    memset(&s, 0, sizeof s);
    s.kind = FAKE_NORM;
    s.weights = n;
    step_tensor(&s, 0, x);
    step_tensor(&s, 1, y);
    step_tensor(&s, 2, zq);
    if (!same_shape(x, y, 4) || x->rank != (spatial ? 4u : 3u) || (spatial && (!zq || !zq->rank)))
        return fail(w, ATTN_INVALID, "fake: norm on rank %" PRIu32, x->rank);
    int64_t channels = spatial ? x->shape[1] : x->shape[2];
    if (n->weight.rank && n->weight.shape[0] != channels)
        return fail(w, ATTN_INVALID, "fake: norm of %" PRId64 " channels on %" PRId64,
                    n->weight.shape[0], channels);
    if (spatial && zq->shape[1] != n->conv_y.weight.shape[1])
        return fail(w, ATTN_INVALID, "fake: zq has %" PRId64 " channels, expected %" PRId64,
                    zq->shape[1], n->conv_y.weight.shape[1]);
    if (data_check(w, "x", x) != ATTN_OK || data_check(w, "y", y) != ATTN_OK ||
        data_check(w, "zq", zq) != ATTN_OK || planned(w, &s) != ATTN_OK ||
        (w->flags & ATTN_WORK_DRY))
        return w->status;
    if (overlaps(x, y))
        return fail(w, ATTN_INTERNAL, "fake: norm writes over its input");
    attn_tensor xt = spatial ? tokens_of(x) : *x, yt = spatial ? tokens_of(y) : *y;
    fake_norm_run(n, &xt, &yt);
    if (spatial)
        fake_spatial_run(n, zq, y);
    return ATTN_OK;
}

static attn_status attend_shapes(attn_work *w, const attn_op_call *c)
{
    const attn_tensor *q = &c->q, *k = &c->k, *v = &c->v;
    int64_t b = q->shape[0], h = q->shape[1], nq = q->shape[2], nk = k->shape[2];
    const int64_t scores[4] = {b, h, nq, nk};
    if (q->rank != 4 || k->rank != 4 || v->rank != 4 || c->out.rank != 4 || k->shape[0] != b ||
        v->shape[0] != b || q->shape[3] != k->shape[3] || v->shape[2] != nk ||
        c->out.shape[0] != b || c->out.shape[1] != h || c->out.shape[2] != nq ||
        c->out.shape[3] != v->shape[3] || h % k->shape[1] != 0)
        return fail(w, ATTN_INVALID, "fake: attend on shapes that do not fit");
    const attn_tensor *wide[3] = {&c->bias, &c->mask, &c->probs};
    const char *const names[3] = {"bias", "mask", "probs"};
    for (int i = 0; i < 3; i++) {
        int fits = wide[i]->rank == 4 && memcmp(wide[i]->shape, scores, sizeof scores) == 0;
        if (wide[i]->rank && !fits)
            return fail(w, ATTN_INVALID, "fake: attend: %s is not [B, H, Nq, Nk]", names[i]);
    }
    if (c->mask.rank && (c->mask.code != ATTN_CODE_UINT || c->mask.bits != 8))
        return fail(w, ATTN_INVALID, "fake: attend: the mask is not bytes");
    if (c->lse.rank && (c->lse.rank != 3 || memcmp(c->lse.shape, scores, 3 * sizeof *scores) != 0))
        return fail(w, ATTN_INVALID, "fake: attend: lse is not [B, H, Nq]");
    if (c->key_mass.rank &&
        (c->key_mass.rank != 2 || c->key_mass.shape[0] != b || c->key_mass.shape[1] != nk))
        return fail(w, ATTN_INVALID, "fake: attend: key_mass is not [B, Nk]");
    return ATTN_OK;
}

static attn_status fake_attend(attn_work *w, const attn_op_call *c)
{
    if (w->status != ATTN_OK)
        return w->status;
    const struct fake_compute *fake = w->host;
    const attn_tensor *tensors[9] = {&c->q,    &c->k,   &c->v,        &c->out,  &c->bias,
                                     &c->mask, &c->lse, &c->key_mass, &c->probs};
    struct fake_step s;
    memset(&s, 0, sizeof s);
    s.kind = FAKE_ATTEND;
    s.alpha = c->scale;
    s.flags = c->flags;
    for (int i = 0; i < 8; i++)
        step_tensor(&s, i, tensors[i]);
    if (c->size < sizeof *c || attend_shapes(w, c) != ATTN_OK)
        return w->status;
    if (c->key_mass.rank && fake->refuse_attend)
        return fail(w, fake->refuse_attend, "attend: [fake: does not give key_mass]");
    for (int i = 0; i < 9; i++)
        if (data_check(w, "a tensor of attend", tensors[i]) != ATTN_OK)
            return w->status;
    if (planned(w, &s) != ATTN_OK || (w->flags & ATTN_WORK_DRY))
        return w->status;
    if (overlaps(&c->out, &c->q) || overlaps(&c->out, &c->k) || overlaps(&c->out, &c->v))
        return fail(w, ATTN_INTERNAL, "fake: attend writes over its input");
    if (!fake_attend_run(c))
        return fail(w, ATTN_NOMEM, "fake: no memory");
    return ATTN_OK;
}

/* At bind (no dry run was made) copy and fill act at once. */
static attn_status simple(attn_work *w, enum fake_kind kind, float alpha, const attn_tensor *a,
                          float beta, const attn_tensor *b, const attn_tensor *dst)
{
    const struct fake_compute *fake = w->host;
    struct fake_step s;
    if (w->status != ATTN_OK)
        return w->status;
    memset(&s, 0, sizeof s);
    s.kind = kind;
    s.alpha = alpha;
    s.beta = beta;
    step_tensor(&s, 0, a);
    step_tensor(&s, 1, b);
    step_tensor(&s, 2, dst);
    int at_bind = w->base == 0 && !(w->flags & ATTN_WORK_DRY);
    if (data_check(w, "an operand", a) != ATTN_OK || data_check(w, "an operand", b) != ATTN_OK ||
        data_check(w, "a result", dst) != ATTN_OK)
        return w->status;
    if (!at_bind && (!fake || planned(w, &s) != ATTN_OK))
        return w->status;
    return ATTN_OK;
}

static attn_status fake_combine(attn_work *w, float alpha, const attn_tensor *a, float beta,
                                const attn_tensor *b, const attn_tensor *out)
{
    if (w->status == ATTN_OK && (!same_shape(a, out, 4) || !same_shape(b, out, 4)))
        return fail(w, ATTN_INVALID, "fake: combine of different shapes");
    if (simple(w, FAKE_COMBINE, alpha, a, beta, b, out) == ATTN_OK && !(w->flags & ATTN_WORK_DRY))
        fake_elements_run(alpha, a, beta, b, out);
    return w->status;
}

static attn_status fake_copy(attn_work *w, const attn_tensor *src, const attn_tensor *dst)
{
    if (simple(w, FAKE_COPY, 1, src, 0, NULL, dst) == ATTN_OK && !(w->flags & ATTN_WORK_DRY))
        fake_elements_run(1, src, 0, NULL, dst);
    return w->status;
}

static attn_status fake_fill(attn_work *w, float value, const attn_tensor *dst)
{
    if (simple(w, FAKE_FILL, value, NULL, 0, NULL, dst) != ATTN_OK || (w->flags & ATTN_WORK_DRY))
        return w->status;
    fake_fill_run(value, dst);
    return ATTN_OK;
}

/* -- host -------------------------------------------------------------------------------------- */

static const void *fake_query(void *ctx, const char *id)
{
    struct fake_compute *fake = ctx;
    return strcmp(id, "attn.compute/1") == 0 ? &fake->table : NULL;
}

void fake_init(struct fake_compute *fake)
{
    memset(fake, 0, sizeof *fake);
    fake->table = (attn_compute){.size = sizeof fake->table,
                                 .ctx = fake,
                                 .alloc = fake_alloc,
                                 .free = fake_free,
                                 .linear = fake_linear,
                                 .norm = fake_norm,
                                 .attend = fake_attend,
                                 .combine = fake_combine,
                                 .copy = fake_copy,
                                 .fill = fake_fill};
    fake->host =
        (attn_host){.size = sizeof fake->host, .max_threads = 1, .ctx = fake, .query = fake_query};
}

attn_work fake_bind_work(struct fake_compute *fake, attn_error *err)
{
    return (attn_work){.size = sizeof(attn_work), .host = fake, .err = err};
}

static void hide(attn_layer_call *call)
{
    attn_tensor *tensors[] = {&call->hidden, &call->encoder,  &call->out,
                              &call->bias,   &call->mask,     &call->temb,
                              &call->lse,    &call->key_mass, &call->probs};
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
        tensors[i]->data = NULL;
}

attn_status fake_prepare(struct fake_run *run, struct fake_compute *fake,
                         const attn_processor_api *api, attn_binding *binding,
                         attn_layer_call *call)
{
    enum { IMAGES = 8 };
    attn_tensor images[IMAGES];
    attn_layer_call dry = *call;
    const float *scales = run->work.scales;
    uint32_t n_scales = run->work.n_scales;
    memset(run, 0, sizeof *run);
    run->fake = fake;
    run->api = api;
    run->err = (attn_error){sizeof run->err, FAKE_TEXT, run->text, 0};
    run->work = (attn_work){.size = sizeof run->work,
                            .flags = ATTN_WORK_DRY,
                            .host = fake,
                            .err = &run->err,
                            .scales = scales,
                            .n_scales = n_scales,
                            .name = "layer attn"};
    hide(&dry);
    for (uint32_t i = 0; i < call->n_images && i < IMAGES; i++) {
        images[i] = call->images[i];
        images[i].data = NULL;
    }
    dry.images = call->n_images ? images : NULL;
    dry.work = &run->work;
    fake->n_steps = 0;
    fake->terms_seen = 0;
    memset(fake->count, 0, sizeof fake->count);
    attn_status status = api->prepare(binding, &dry, &run->plan);
    if (status != ATTN_OK)
        return status;
    if (run->work.used != 0) {
        (void)snprintf(run->text, sizeof run->text,
                       "fake: prepare kept %" PRIu64 " bytes of scratch", run->work.used);
        return ATTN_INTERNAL;
    }
    run->arena_bytes = (run->work.peak + 255u) & ~UINT64_C(255);
    run->arena = aligned_alloc(256, run->arena_bytes + 256);
    return run->arena ? ATTN_OK : ATTN_NOMEM;
}

attn_status fake_execute(struct fake_run *run, attn_layer_call *call)
{
    struct fake_compute *fake = run->fake;
    uint64_t peak = run->work.peak;
    memset(run->arena, 0xff, run->arena_bytes + 256);
    run->work.flags = 0;
    run->work.status = ATTN_OK;
    run->work.base = (uint64_t)(uintptr_t)run->arena;
    run->work.capacity = peak;
    run->work.used = run->work.peak = 0;
    call->work = &run->work;
    fake->cursor = 0;
    fake->may_skip = (call->flags & ATTN_LAYER_CALL_SAME) != 0;
    memset(fake->count, 0, sizeof fake->count);
    attn_status status = run->api->run(run->plan, call);
    int whole = fake->cursor == fake->n_steps || fake->may_skip;
    int within = run->work.peak == peak || fake->may_skip;
    const unsigned char *behind = (const unsigned char *)run->arena + peak;
    uint64_t left = run->arena_bytes + 256 - peak;
    for (uint64_t i = 0; i < left; i++)
        within = within && behind[i] == 0xff;
    run->work.peak = peak;
    if (status == ATTN_OK && (!whole || !within)) {
        (void)snprintf(run->text, sizeof run->text,
                       "fake: the real run made %" PRIu32 " of %" PRIu32 " calls, scratch %s",
                       fake->cursor, fake->n_steps, within ? "as counted" : "not as counted");
        return ATTN_INTERNAL;
    }
    return status;
}

void fake_release(struct fake_run *run)
{
    if (run->plan)
        run->api->release(run->plan);
    run->plan = NULL;
    free(run->arena);
    run->arena = NULL;
}
