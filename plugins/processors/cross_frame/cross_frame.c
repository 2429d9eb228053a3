/* cross_frame: diffusers' CrossFrameAttnProcessor (v0.26.3
 * src/diffusers/pipelines/text_to_video_synthesis/pipeline_text_to_video_zero.py): frames of a
 * video lie in the batch, and each attends to the first of its video.
 *
 *   hidden [batch_size * frames, N, C]
 *   out[g, f] = to_out(attention(to_q(hidden[g, f]), to_k(hidden[g, 0]), to_v(hidden[g, 0])))
 *
 * With encoder states it is plain cross-attention.  Norms of the hidden states, residual and
 * rescaling are left out, as upstream.  Keys and values are made of first frames alone.
 *
 * Check: meson test processors       Time: meson test --benchmark processors
 */
#include "error.h"
#include "forward.h"
#include "params.h"

#include <inttypes.h>

struct cross_frame {
    int64_t batch_size; /* videos in the batch */
};

static attn_status cross_frame_bind(attn_binding *b, const attn_param *params, uint32_t n,
                                    attn_work *work, attn_error *err)
{
    struct cross_frame *s = b->state;
    (void)work;
    s->batch_size = 2;
    attn_status status =
        params_int(params, n, "batch_size", 1, INT32_MAX, &s->batch_size, b->who, err);
    return status == ATTN_OK ? layer_check_keys(b, err) : status;
}

/* Entries [begin, begin + count) of the batch, where there is such a tensor. */
static attn_tensor batch_slice(const attn_tensor *t, int64_t begin, int64_t count)
{
    return tensor_absent(t) ? *t : tensor_slice(t, 0, begin, count);
}

/* The frames of video g: all of them look at the keys of its first. */
static void cross_frame_attend(struct forward *f, int64_t g, int64_t frames, const attn_tensor *q,
                               const attn_tensor *k, const attn_tensor *v, const attn_tensor *o)
{
    attn_tensor qg = tensor_slice(q, 0, g * frames, frames);
    attn_tensor og = tensor_slice(o, 0, g * frames, frames);
    attn_tensor kg = tensor_slice(k, 0, g, 1), vg = tensor_slice(v, 0, g, 1);
    kg.shape[0] = vg.shape[0] = frames;
    kg.stride[0] = vg.stride[0] = 0;
    attn_op_call c = forward_op_call(f, ATTENTION_OWN, &qg, &kg, &vg, &og);
    attn_tensor *const rows[] = {&c.bias, &c.mask, &c.lse, &c.key_mass, &c.probs};
    for (int i = 0; i < 5; i++)
        *rows[i] = batch_slice(rows[i], g * frames, frames);
    if (f->work->status == ATTN_OK)
        f->compute->attend(f->work, &c);
}

static void cross_frame_self(struct forward *f, const attn_tensor *q, const attn_tensor *o)
{
    const struct cross_frame *s = f->binding->state;
    const attn_layer *l = f->layer;
    /* Fewer entries than videos: each is a video of one frame, as CrossFrameAttnProcessor2_0 has
     * it.  SAG's second pass, half the batch of its first, runs so. */
    int64_t videos = f->batch < s->batch_size ? f->batch : s->batch_size;
    if (l->cross_dim != l->query_dim) {
        forward_need_encoder(f);
        return;
    }
    if (videos > 0 && f->batch % videos != 0) {
        forward_fail(f, ATTN_INVALID,
                     "batch %" PRId64
                     " holds no whole number of frames for each of batch_size %" PRId64 " videos",
                     f->batch, videos);
        return;
    }
    int64_t frames = videos > 0 ? f->batch / videos : 0;
    attn_tensor first = f->x;
    first.shape[0] = videos;
    first.stride[0] *= frames;
    attn_tensor k = forward_project(f, &first, &l->to_k);
    attn_tensor v = forward_project(f, &first, &l->to_v);
    if (frames == 1)
        forward_attend(f, ATTENTION_OWN, q, &k, &v, o);
    else
        for (int64_t g = 0; g < videos; g++)
            cross_frame_attend(f, g, frames, q, &k, &v, o);
}

static void cross_frame_forward(struct forward *f)
{
    const attn_layer *l = f->layer;
    attn_tensor q = forward_project(f, &f->x, &l->to_q);
    attn_tensor o = forward_take(f, f->batch, f->tokens, q.shape[2]);
    if (forward_has_encoder(f)) {
        attn_tensor k, v;
        forward_keys(f, &l->to_k, &l->to_v, &k, &v);
        forward_attend(f, ATTENTION_OWN, &q, &k, &v, &o);
    } else {
        cross_frame_self(f, &q, &o);
    }
    forward_output(f, &o, &l->to_out, NULL, 1.0f);
}

static const attn_param_info cross_frame_infos[] = {
    {"batch_size", ATTN_PARAM_INT, 0, "videos in the batch, classifier-free guidance included: 2"},
};
static const attn_param_list cross_frame_params = {sizeof cross_frame_params, 1, cross_frame_infos};

const struct processor_kind processor_kind = {
    .name = "cross_frame",
    .params = &cross_frame_params,
    .state_bytes = sizeof(struct cross_frame),
    .bind = cross_frame_bind,
    .forward = cross_frame_forward,
};

PROCESSOR_EXPORT("cross_frame", ATTN_HEAD_TERMS,
                 "diffusers' CrossFrameAttnProcessor: frames attend to the first of their video");
