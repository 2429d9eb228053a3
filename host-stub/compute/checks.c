/* checks.c: what every device asks of the tensors of an operation. */
#include "checks.h"

attn_status check_floats(attn_work *w, const char *what, uint32_t n, const attn_tensor *const *t)
{
    for (uint32_t i = 0; i < n && w->status == ATTN_OK; ++i) {
        if (!t[i] || t[i]->rank < 1 || t[i]->rank > 4 || !tensor_is_float(t[i]))
            work_fail(w, ATTN_INVALID, "%s: tensor %u is %s: expected fp32, fp16 or bf16", what, i,
                      tensor_describe(t[i] ? t[i] : &(attn_tensor){0}).text);
    }
    return w->status;
}

/* -- element by element ------------------------------------------------------------------------ */

attn_status check_copy(attn_work *w, const attn_tensor *src, const attn_tensor *dst)
{
    const attn_tensor *both[] = {src, dst};
    if (check_floats(w, "copy", 2, both) != ATTN_OK)
        return w->status;
    attn_tensor s = tensor_rank4(src), d = tensor_rank4(dst);
    for (int i = 0; i < 4; ++i) {
        if (s.shape[i] != d.shape[i] && s.shape[i] != 1)
            return work_fail(w, ATTN_INVALID, "copy: %s does not broadcast to %s",
                             tensor_describe(src).text, tensor_describe(dst).text);
    }
    return ATTN_OK;
}

attn_status check_combine(attn_work *w, const attn_tensor *a, float beta, const attn_tensor *b,
                          const attn_tensor *out)
{
    bool two = tensor_here(b);
    const attn_tensor *all[] = {a, out, b};
    if (check_floats(w, "combine", two ? 3 : 2, all) != ATTN_OK)
        return w->status;
    if (!tensor_same_shape(a, out) || (two && !tensor_same_shape(b, out)) || (!two && beta != 0.0f))
        return work_fail(w, ATTN_INVALID, "combine: %s and %s to %s: expected one shape",
                         tensor_describe(a).text, tensor_describe(b).text,
                         tensor_describe(out).text);
    return ATTN_OK;
}

attn_status check_activate(attn_work *w, const attn_tensor *x, const attn_tensor *y)
{
    const attn_tensor *both[] = {x, y};
    if (check_floats(w, "activate", 2, both) != ATTN_OK)
        return w->status;
    return tensor_same_shape(x, y)
               ? ATTN_OK
               : work_fail(w, ATTN_INVALID, "activate: %s to %s: expected one shape",
                           tensor_describe(x).text, tensor_describe(y).text);
}

/* -- sources ----------------------------------------------------------------------------------- */

attn_status check_upsample(attn_work *w, const attn_tensor *x, const attn_tensor *y)
{
    const attn_tensor *both[] = {x, y};
    if (check_floats(w, "upsample", 2, both) != ATTN_OK)
        return w->status;
    if (x->rank != 4 || y->rank != 4 || x->shape[0] != y->shape[0] || x->shape[3] != y->shape[3] ||
        x->shape[1] < 1 || x->shape[2] < 1)
        return work_fail(w, ATTN_INVALID, "upsample: %s to %s", tensor_describe(x).text,
                         tensor_describe(y).text);
    return ATTN_OK;
}

attn_status check_embed(attn_work *w, const attn_tensor *ids, const attn_tensor *table,
                        const attn_tensor *positions, const attn_tensor *y)
{
    bool placed = tensor_here(positions);
    const attn_tensor *all[] = {table, y, placed ? positions : table};
    if (check_floats(w, "embed", 3, all) != ATTN_OK)
        return w->status;
    if (!tensor_is(ids, ATTN_CODE_INT, 32) || ids->rank != 2 || table->rank != 2 || y->rank != 3 ||
        y->shape[0] != ids->shape[0] || y->shape[1] != ids->shape[1] ||
        y->shape[2] != table->shape[1] ||
        (placed && (positions->rank != 2 || positions->shape[0] < ids->shape[1] ||
                    positions->shape[1] != table->shape[1])))
        return work_fail(w, ATTN_INVALID, "embed: ids %s, table %s, positions %s, y %s do not fit",
                         tensor_describe(ids).text, tensor_describe(table).text,
                         tensor_describe(positions).text, tensor_describe(y).text);
    return ATTN_OK;
}

attn_status check_timestep(attn_work *w, const attn_tensor *t, const attn_tensor *y)
{
    if (check_floats(w, "timestep", 1, &y) != ATTN_OK)
        return w->status;
    if (!tensor_f32(t) || t->rank != 1 || y->rank != 2 || y->shape[0] != t->shape[0])
        return work_fail(w, ATTN_INVALID, "timestep: t %s, y %s: expected [B] f32 and [B, dim]",
                         tensor_describe(t).text, tensor_describe(y).text);
    return ATTN_OK;
}

attn_status check_degrade(attn_work *w, const attn_tensor *key_mass, int64_t mh, int64_t mw,
                          const attn_tensor *mask_in, const attn_tensor *x0, const attn_tensor *out)
{
    if (w->status != ATTN_OK)
        return w->status;
    if (!tensor_f32(x0) || !tensor_f32(out) || x0->rank != 4 || !tensor_same_shape(x0, out))
        return work_fail(w, ATTN_INVALID, "sag_degrade: x0 %s, out %s: expected [B, h, w, C] f32",
                         tensor_describe(x0).text, tensor_describe(out).text);
    if (x0->shape[1] <= BLUR_RADIUS || x0->shape[2] <= BLUR_RADIUS)
        return work_fail(w, ATTN_INVALID,
                         "sag_degrade: latents of %lld x %lld: the blur of self-attention guidance "
                         "needs at least %d x %d",
                         (long long)x0->shape[1], (long long)x0->shape[2], BLUR_RADIUS + 1,
                         BLUR_RADIUS + 1);
    const attn_tensor *m = tensor_here(mask_in) ? mask_in : key_mass;
    bool type = tensor_here(mask_in) ? tensor_is(m, ATTN_CODE_UINT, 8) : tensor_f32(m);
    if (!type || m->rank != 2 || m->shape[0] != x0->shape[0] || m->shape[1] != mh * mw || mh < 1 ||
        mw < 1)
        return work_fail(w, ATTN_INVALID, "sag_degrade: mask %s for %lld x %lld cells",
                         tensor_describe(m).text, (long long)mh, (long long)mw);
    return ATTN_OK;
}

/* -- norms ------------------------------------------------------------------------------------- */

static attn_status check_norm_vectors(attn_work *w, const struct norm_call *n, int64_t channels)
{
    static const char *const names[] = {"weight", "bias", "add", "scale", "shift"};
    const attn_tensor *vectors[] = {&n->norm->weight, &n->norm->bias, n->add, n->scale, n->shift};
    for (int i = 0; i < 5; ++i) {
        const attn_tensor *v = vectors[i];
        if (!tensor_here(v))
            continue;
        bool fits = tensor_is_float(v) && tensor_last(v) == channels &&
                    (i < 2 ? v->rank == 1 : v->rank == 2 && v->shape[0] == n->x->shape[0]);
        if (!fits)
            return work_fail(w, ATTN_INVALID, "norm: %s %s for x %s", names[i],
                             tensor_describe(v).text, tensor_describe(n->x).text);
    }
    return ATTN_OK;
}

attn_status check_norm(attn_work *w, const struct norm_call *n, const attn_tensor *y)
{
    const attn_norm *norm = n->norm;
    const attn_tensor *x = n->x, *x2 = n->x2;
    const attn_tensor *all[] = {x, y, tensor_here(x2) ? x2 : x};
    if (check_floats(w, "norm", 3, all) != ATTN_OK)
        return w->status;
    int64_t channels = tensor_last(x) + (tensor_here(x2) ? tensor_last(x2) : 0);
    bool is_group = norm->kind == ATTN_NORM_GROUP;
    if (!is_group && norm->kind != ATTN_NORM_LAYER)
        return work_fail(w, ATTN_UNSUPPORTED, "norm: kind %u, expected %u (layer) or %u (group)",
                         norm->kind, ATTN_NORM_LAYER, ATTN_NORM_GROUP);
    if (!is_group &&
        (tensor_here(x2) || tensor_here(n->add) || tensor_here(n->scale) || tensor_here(n->shift)))
        return work_fail(w, ATTN_UNSUPPORTED,
                         "norm: a layer norm takes one input and neither add, scale nor shift");
    if (!tensor_same_leading(x, y) || tensor_last(y) != channels ||
        (tensor_here(x2) && !tensor_same_leading(x, x2)) || (is_group && x->rank < 3))
        return work_fail(w, ATTN_INVALID, "norm: x %s, x2 %s, y %s do not fit",
                         tensor_describe(x).text, tensor_describe(x2).text,
                         tensor_describe(y).text);
    if (is_group && (!norm->groups || channels % norm->groups))
        return work_fail(w, ATTN_INVALID, "norm: %lld channels in %u groups", (long long)channels,
                         norm->groups);
    return check_norm_vectors(w, n, channels);
}

attn_status check_spatial(attn_work *w, const attn_tensor *x, const attn_tensor *zq,
                          const attn_tensor *y)
{
    if (w->status != ATTN_OK)
        return w->status;
    if (x->rank != 4 || y->rank != 4 || !tensor_here(zq) || zq->rank != 4 ||
        !tensor_same_shape(x, y) || zq->shape[0] != x->shape[0])
        return work_fail(
            w, ATTN_INVALID, "spatial norm: x %s, zq %s, y %s: expected [B, C, H, W] of one batch",
            tensor_describe(x).text, tensor_describe(zq).text, tensor_describe(y).text);
    return ATTN_OK;
}

/* -- linears ----------------------------------------------------------------------------------- */

static attn_status check_terms(attn_work *w, const attn_linear *linear, int64_t depth, int64_t out)
{
    for (uint32_t i = 0; i < linear->n_terms; ++i) {
        const attn_term *t = &linear->terms[i];
        const attn_tensor *both[] = {&t->down, &t->up};
        if (t->kind != ATTN_TERM_LOW_RANK)
            return work_fail(w, ATTN_UNSUPPORTED,
                             "linear: term %u is of kind %u, expected %u (low rank)", i, t->kind,
                             ATTN_TERM_LOW_RANK);
        if (check_floats(w, "linear's term", 2, both) != ATTN_OK)
            return w->status;
        if (t->down.rank != 2 || t->up.rank != 2 || t->down.shape[1] != depth ||
            t->up.shape[0] != out || t->up.shape[1] != t->down.shape[0])
            return work_fail(w, ATTN_INVALID,
                             "linear: term %u has down %s and up %s: expected [rank, %lld] and "
                             "[%lld, rank]",
                             i, tensor_describe(&t->down).text, tensor_describe(&t->up).text,
                             (long long)depth, (long long)out);
        if (!work_dry(w) && t->slot >= w->n_scales)
            return work_fail(w, ATTN_INVALID, "linear: term %u has slot %u of %u scales", i,
                             t->slot, w->n_scales);
    }
    pass_saw_terms(w, linear);
    return w->status;
}

attn_status check_linear(attn_work *w, const char *what, const struct linear_args *l)
{
    const attn_tensor *weight = &l->linear->weight, *bias = &l->linear->bias;
    const attn_tensor *all[5] = {l->x, l->y, weight};
    uint32_t n = 3;
    if (tensor_here(l->c))
        all[n++] = l->c;
    if (tensor_here(bias))
        all[n++] = bias;
    if (check_floats(w, what, n, all) != ATTN_OK)
        return w->status;
    const int64_t depth = tensor_last(l->x), out = tensor_last(l->y) * (l->gated ? 2 : 1);
    if (weight->rank != 2 || weight->shape[1] != depth || weight->shape[0] != out ||
        !tensor_same_leading(l->x, l->y))
        return work_fail(w, ATTN_INVALID, "%s: x %s, weight %s, y %s do not fit", what,
                         tensor_describe(l->x).text, tensor_describe(weight).text,
                         tensor_describe(l->y).text);
    if (tensor_here(bias) && (bias->rank != 1 || bias->shape[0] != out))
        return work_fail(w, ATTN_INVALID, "%s: bias %s: expected [%lld]", what,
                         tensor_describe(bias).text, (long long)out);
    if (tensor_here(l->c) ? !tensor_same_shape(l->c, l->y) : l->beta != 0.0f)
        return work_fail(w, ATTN_INVALID, "%s: c %s: expected the shape of y %s", what,
                         tensor_describe(l->c).text, tensor_describe(l->y).text);
    return check_terms(w, l->linear, depth, out);
}

/* -- convolutions ------------------------------------------------------------------------------ */

attn_status conv_desc_check(const struct conv_desc *d, int64_t kernel_max, attn_error *err)
{
    const attn_tensor *w = d->weight;
    if (d->kernel < 1 || d->kernel > kernel_max || d->stride < 1 || d->pad_low < 0 ||
        d->pad_high < 0)
        return attn_fail(err, ATTN_UNSUPPORTED,
                         "conv: kernel %lld, stride %lld, padding %lld, %lld", (long long)d->kernel,
                         (long long)d->stride, (long long)d->pad_low, (long long)d->pad_high);
    const int64_t shape[] = {d->out_channels, d->in_channels, d->kernel, d->kernel};
    if (!tensor_here(w) || !tensor_is_float(w) || w->rank != 4 ||
        memcmp(w->shape, shape, sizeof shape) != 0)
        return attn_fail(err, ATTN_INVALID,
                         "conv: weight %s: expected [%lld, %lld, %lld, %lld] of a float type",
                         tensor_describe(w).text, (long long)shape[0], (long long)shape[1],
                         (long long)shape[2], (long long)shape[3]);
    if (tensor_here(d->bias) &&
        (!tensor_is_float(d->bias) || d->bias->rank != 1 || d->bias->shape[0] != d->out_channels))
        return attn_fail(err, ATTN_INVALID, "conv: bias %s: expected [%lld] of a float type",
                         tensor_describe(d->bias).text, (long long)d->out_channels);
    return ATTN_OK;
}

static int64_t conv_out_size(const struct conv_sizes *s, int64_t in)
{
    int64_t room = in + s->pad_low + s->pad_high - s->kernel;
    return room < 0 ? 0 : room / s->stride + 1;
}

attn_status check_conv(attn_work *w, const struct conv_sizes *s, const attn_tensor *x,
                       const attn_tensor *x2, const struct epilogue *e, const attn_tensor *y)
{
    const attn_tensor *all[] = {x, y, tensor_here(x2) ? x2 : x,
                                e && tensor_here(e->residual) ? e->residual : y};
    if (check_floats(w, "conv", 4, all) != ATTN_OK)
        return w->status;
    int64_t channels = x->rank == 4 ? x->shape[3] : 0;
    if (tensor_here(x2))
        channels += tensor_same_leading(x, x2) ? x2->shape[3] : 0;
    if (x->rank != 4 || y->rank != 4 || channels != s->in_channels || y->shape[0] != x->shape[0] ||
        y->shape[1] != conv_out_size(s, x->shape[1]) ||
        y->shape[2] != conv_out_size(s, x->shape[2]) || y->shape[3] != s->out_channels)
        return work_fail(w, ATTN_INVALID,
                         "conv %lldx%lld of %lld to %lld channels, stride %lld: x %s, x2 %s, y %s "
                         "do not fit",
                         (long long)s->kernel, (long long)s->kernel, (long long)s->in_channels,
                         (long long)s->out_channels, (long long)s->stride, tensor_describe(x).text,
                         tensor_describe(x2).text, tensor_describe(y).text);
    if (e && tensor_here(e->residual) && !tensor_same_shape(e->residual, y))
        return work_fail(w, ATTN_INVALID, "conv: residual %s: expected the shape of y %s",
                         tensor_describe(e->residual).text, tensor_describe(y).text);
    return ATTN_OK;
}
