/* elements.c: what needs no plan: copies, sums, activations, embeddings, enlargement, and what
 * self-attention guidance does to a predicted picture.  The kernels take any strides and types;
 * whether the shapes fit is asked in ../checks.c. */
#include "cuda.h"

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
    return check_copy(w, src, dst) == ATTN_OK && goes(w)
               ? work_check(w, "copy", kernels()->copy(src, dst, w->stream))
               : w->status;
}

attn_status cuda_fill(attn_work *w, float value, const attn_tensor *dst)
{
    return check_floats(w, "fill", 1, &dst) == ATTN_OK && goes(w)
               ? work_check(w, "fill", kernels()->fill(value, dst, w->stream))
               : w->status;
}

attn_status cuda_combine(attn_work *w, float alpha, const attn_tensor *a, float beta,
                         const attn_tensor *b, const attn_tensor *out)
{
    return check_combine(w, a, beta, b, out) == ATTN_OK && goes(w)
               ? work_check(w, "combine", kernels()->combine(alpha, a, beta, b, out, w->stream))
               : w->status;
}

attn_status cuda_activate(attn_work *w, enum activation act, const attn_tensor *x,
                          const attn_tensor *y)
{
    return check_activate(w, x, y) == ATTN_OK && goes(w)
               ? work_check(w, "activate", kernels()->activate((int32_t)act, x, y, w->stream))
               : w->status;
}

attn_status cuda_upsample(attn_work *w, const attn_tensor *x, const attn_tensor *y)
{
    return check_upsample(w, x, y) == ATTN_OK && goes(w)
               ? work_check(w, "upsample", kernels()->upsample(x, y, w->stream))
               : w->status;
}

attn_status cuda_embed(attn_work *w, const attn_tensor *ids, const attn_tensor *table,
                       const attn_tensor *positions, const attn_tensor *y)
{
    return check_embed(w, ids, table, positions, y) == ATTN_OK && goes(w)
               ? work_check(w, "embed", kernels()->embed(ids, table, positions, y, w->stream))
               : w->status;
}

attn_status cuda_timestep(attn_work *w, const attn_tensor *t, int32_t flip_sin_to_cos,
                          float freq_shift, const attn_tensor *y)
{
    return check_timestep(w, t, y) == ATTN_OK && goes(w)
               ? work_check(w, "timestep",
                            kernels()->timestep(t, flip_sin_to_cos, freq_shift, y, w->stream))
               : w->status;
}

attn_status cuda_sag_degrade(attn_work *w, const attn_tensor *key_mass, int64_t mh, int64_t mw,
                             const attn_tensor *mask_in, const attn_tensor *x0,
                             const attn_tensor *out)
{
    return check_degrade(w, key_mass, mh, mw, mask_in, x0, out) == ATTN_OK && goes(w)
               ? work_check(w, "sag_degrade",
                            kernels()->sag_degrade(key_mass, mh, mw, mask_in, x0, out, w->stream))
               : w->status;
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
    if (check_floats(w, "mix", n_y, y) != ATTN_OK || check_floats(w, "mix", n_x, x) != ATTN_OK)
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
