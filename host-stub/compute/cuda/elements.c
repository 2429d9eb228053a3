/* elements.c: what needs no plan: copies, sums, activations, embeddings, enlargement, and what
 * self-attention guidance does to a predicted picture.  The kernels take any strides and types;
 * here is whether the shapes fit. */
#include "cuda.h"

#define BLUR_LEAST 5 /* cells a side that the blur's reflected edges need */

/* Whether there is something to launch, on the device that is then current. */
static bool goes(attn_work *w)
{
    if (w->status != ATTN_OK || work_dry(w))
        return false;
    ATTN_ERROR_ON(why, 256);
    attn_status status = cuda_current(cuda_of(w), &why);
    if (status != ATTN_OK)
        work_fail(w, status, "%s", why.text);
    return status == ATTN_OK;
}

attn_status cuda_copy(attn_work *w, const attn_tensor *src, const attn_tensor *dst)
{
    const attn_tensor *both[] = {src, dst};
    if (w->status != ATTN_OK || check_floats(w, "copy", 2, both) != ATTN_OK)
        return w->status;
    attn_tensor s = tensor_rank4(src), d = tensor_rank4(dst);
    for (int i = 0; i < 4; ++i) {
        if (s.shape[i] != d.shape[i] && s.shape[i] != 1)
            return work_fail(w, ATTN_INVALID, "copy: %s does not broadcast to %s",
                             tensor_describe(src).text, tensor_describe(dst).text);
    }
    return goes(w) ? work_check(w, "copy", kernels()->copy(src, dst, w->stream)) : w->status;
}

attn_status cuda_fill(attn_work *w, float value, const attn_tensor *dst)
{
    if (w->status != ATTN_OK || check_floats(w, "fill", 1, &dst) != ATTN_OK)
        return w->status;
    return goes(w) ? work_check(w, "fill", kernels()->fill(value, dst, w->stream)) : w->status;
}

attn_status cuda_combine(attn_work *w, float alpha, const attn_tensor *a, float beta,
                         const attn_tensor *b, const attn_tensor *out)
{
    bool two = tensor_here(b);
    const attn_tensor *all[] = {a, out, b};
    if (w->status != ATTN_OK || check_floats(w, "combine", two ? 3 : 2, all) != ATTN_OK)
        return w->status;
    if (!tensor_same_shape(a, out) || (two && !tensor_same_shape(b, out)) || (!two && beta != 0.0f))
        return work_fail(w, ATTN_INVALID, "combine: %s and %s to %s: expected one shape",
                         tensor_describe(a).text, tensor_describe(b).text,
                         tensor_describe(out).text);
    return goes(w) ? work_check(w, "combine", kernels()->combine(alpha, a, beta, b, out, w->stream))
                   : w->status;
}

attn_status cuda_activate(attn_work *w, enum activation act, const attn_tensor *x,
                          const attn_tensor *y)
{
    const attn_tensor *both[] = {x, y};
    if (w->status != ATTN_OK || check_floats(w, "activate", 2, both) != ATTN_OK)
        return w->status;
    if (!tensor_same_shape(x, y))
        return work_fail(w, ATTN_INVALID, "activate: %s to %s: expected one shape",
                         tensor_describe(x).text, tensor_describe(y).text);
    return goes(w) ? work_check(w, "activate", kernels()->activate((int32_t)act, x, y, w->stream))
                   : w->status;
}

attn_status cuda_upsample(attn_work *w, const attn_tensor *x, const attn_tensor *y)
{
    const attn_tensor *both[] = {x, y};
    if (w->status != ATTN_OK || check_floats(w, "upsample", 2, both) != ATTN_OK)
        return w->status;
    if (x->rank != 4 || y->rank != 4 || x->shape[0] != y->shape[0] || x->shape[3] != y->shape[3] ||
        x->shape[1] < 1 || x->shape[2] < 1)
        return work_fail(w, ATTN_INVALID, "upsample: %s to %s", tensor_describe(x).text,
                         tensor_describe(y).text);
    return goes(w) ? work_check(w, "upsample", kernels()->upsample(x, y, w->stream)) : w->status;
}

attn_status cuda_embed(attn_work *w, const attn_tensor *ids, const attn_tensor *table,
                       const attn_tensor *positions, const attn_tensor *y)
{
    bool placed = tensor_here(positions);
    const attn_tensor *all[] = {table, y, placed ? positions : table};
    if (w->status != ATTN_OK || check_floats(w, "embed", 3, all) != ATTN_OK)
        return w->status;
    if (!tensor_is(ids, ATTN_CODE_INT, 32) || ids->rank != 2 || table->rank != 2 || y->rank != 3 ||
        y->shape[0] != ids->shape[0] || y->shape[1] != ids->shape[1] ||
        y->shape[2] != table->shape[1] ||
        (placed && (positions->rank != 2 || positions->shape[0] < ids->shape[1] ||
                    positions->shape[1] != table->shape[1])))
        return work_fail(w, ATTN_INVALID, "embed: ids %s, table %s, positions %s, y %s do not fit",
                         tensor_describe(ids).text, tensor_describe(table).text,
                         tensor_describe(positions).text, tensor_describe(y).text);
    return goes(w) ? work_check(w, "embed", kernels()->embed(ids, table, positions, y, w->stream))
                   : w->status;
}

attn_status cuda_timestep(attn_work *w, const attn_tensor *t, int32_t flip_sin_to_cos,
                          float freq_shift, const attn_tensor *y)
{
    if (w->status != ATTN_OK || check_floats(w, "timestep", 1, &y) != ATTN_OK)
        return w->status;
    if (!tensor_f32(t) || t->rank != 1 || y->rank != 2 || y->shape[0] != t->shape[0])
        return work_fail(w, ATTN_INVALID, "timestep: t %s, y %s: expected [B] f32 and [B, dim]",
                         tensor_describe(t).text, tensor_describe(y).text);
    return goes(w) ? work_check(w, "timestep",
                                kernels()->timestep(t, flip_sin_to_cos, freq_shift, y, w->stream))
                   : w->status;
}

static attn_status check_degrade(attn_work *w, const attn_tensor *key_mass, int64_t mh, int64_t mw,
                                 const attn_tensor *mask_in, const attn_tensor *x0,
                                 const attn_tensor *out)
{
    if (!tensor_f32(x0) || !tensor_f32(out) || x0->rank != 4 || !tensor_same_shape(x0, out))
        return work_fail(w, ATTN_INVALID, "sag_degrade: x0 %s, out %s: expected [B, h, w, C] f32",
                         tensor_describe(x0).text, tensor_describe(out).text);
    if (x0->shape[1] < BLUR_LEAST || x0->shape[2] < BLUR_LEAST)
        return work_fail(w, ATTN_INVALID,
                         "sag_degrade: latents of %lld x %lld: the blur of self-attention guidance "
                         "needs at least %d x %d",
                         (long long)x0->shape[1], (long long)x0->shape[2], BLUR_LEAST, BLUR_LEAST);
    const attn_tensor *m = tensor_here(mask_in) ? mask_in : key_mass;
    bool type = tensor_here(mask_in) ? tensor_is(m, ATTN_CODE_UINT, 8) : tensor_f32(m);
    if (!type || m->rank != 2 || m->shape[0] != x0->shape[0] || m->shape[1] != mh * mw || mh < 1 ||
        mw < 1)
        return work_fail(w, ATTN_INVALID, "sag_degrade: mask %s for %lld x %lld cells",
                         tensor_describe(m).text, (long long)mh, (long long)mw);
    return w->status;
}

attn_status cuda_sag_degrade(attn_work *w, const attn_tensor *key_mass, int64_t mh, int64_t mw,
                             const attn_tensor *mask_in, const attn_tensor *x0,
                             const attn_tensor *out)
{
    if (w->status != ATTN_OK || check_degrade(w, key_mass, mh, mw, mask_in, x0, out) != ATTN_OK ||
        !goes(w))
        return w->status;
    return work_check(w, "sag_degrade",
                      kernels()->sag_degrade(key_mass, mh, mw, mask_in, x0, out, w->stream));
}

/* -- loops at the device ----------------------------------------------------------------------- */

static bool is_step(const attn_tensor *step)
{
    return tensor_is(step, ATTN_CODE_INT, 32) && step->rank == 1 && step->shape[0] == 1;
}

attn_status cuda_mix(attn_work *w, uint32_t n_y, const attn_tensor *const *y, uint32_t n_x,
                     const attn_tensor *const *x, const attn_tensor *coefficients,
                     const attn_tensor *step)
{
    if (w->status != ATTN_OK || check_floats(w, "mix", n_y, y) != ATTN_OK ||
        check_floats(w, "mix", n_x, x) != ATTN_OK)
        return w->status;
    if (n_y < 1 || n_y > KERNEL_MIX_OUTPUTS || n_x < 1 || n_x > KERNEL_MIX_INPUTS ||
        !tensor_f32(coefficients) || coefficients->rank != 3 || coefficients->shape[1] != n_y ||
        coefficients->shape[2] != n_x || !is_step(step))
        return work_fail(w, ATTN_INVALID, "mix: coefficients %s for %u outputs of %u inputs",
                         tensor_describe(coefficients).text, n_y, n_x);
    const int64_t n = tensor_count(y[0]);
    for (uint32_t i = 0; i < n_y + n_x; ++i) {
        const attn_tensor *t = i < n_y ? y[i] : x[i - n_y];
        if (tensor_count(t) != n || !tensor_contiguous(t))
            return work_fail(w, ATTN_INVALID, "mix: %s: expected %lld contiguous elements",
                             tensor_describe(t).text, (long long)n);
    }
    return goes(w) ? work_check(
                         w, "mix",
                         kernels()->mix(n_y, y, n_x, x, coefficients->data, step->data, w->stream))
                   : w->status;
}

attn_status cuda_pick(attn_work *w, const attn_tensor *table, const attn_tensor *step,
                      const attn_tensor *y)
{
    if (w->status == ATTN_OK && (!tensor_f32(table) || table->rank != 1 || !tensor_f32(y) ||
                                 !tensor_contiguous(y) || !is_step(step)))
        return work_fail(w, ATTN_INVALID, "pick: table %s, y %s", tensor_describe(table).text,
                         tensor_describe(y).text);
    return goes(w) ? work_check(w, "pick",
                                kernels()->step_pick(table->data, step->data, 1, tensor_count(y),
                                                     y->data, w->stream))
                   : w->status;
}

attn_status cuda_advance(attn_work *w, const attn_tensor *step)
{
    if (w->status == ATTN_OK && !is_step(step))
        return work_fail(w, ATTN_INVALID, "advance: step %s", tensor_describe(step).text);
    return goes(w) ? work_check(w, "advance", kernels()->step_advance(step->data, 1, w->stream))
                   : w->status;
}
