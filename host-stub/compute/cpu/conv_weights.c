/* conv_weights.c: see conv_weights.h.
 *
 * Where the source of the weights stays (conv_desc.weight_read), they are laid out when they are
 * first run, just as the plan wants them: models that run one after another need not have their
 * weights in memory together.  Otherwise they are laid out at once, as a primitive for a picture of
 * usual size wants them, and from that layout into others.
 *
 * A convolution keeps a few layouts: passes of other sizes may want others.  Where one more is
 * wanted, the one that was used longest ago goes, and is made again when it is needed.
 */
#include "conv_weights.h"

#include <stdlib.h>

#define LAYOUTS_MAX 3
#define USUAL_SIZE  32

struct layout {
    struct onednn_weights *weights; /* NULL: free */
    uint32_t users;                 /* runs that read it now */
    uint64_t turn;                  /* when it was last asked for */
};

/* All under cpu->lock but what never changes. */
struct conv_weights {
    struct layout layouts[LAYOUTS_MAX];
    uint64_t turns;
    float *bias;
    uint64_t bytes;     /* of all of them, as compute_took was told */
    attn_tensor source; /* absent: gone */
    void (*read)(void *ctx, const attn_tensor *source);
    void *ctx;
};

struct onednn_conv conv_shape(const struct conv *conv, int64_t batch, int64_t height, int64_t width)
{
    int64_t pads = conv->pad_low + conv->pad_high;
    return (struct onednn_conv){.batch = batch,
                                .height = height,
                                .width = width,
                                .in = conv->in_channels,
                                .out_height = (height + pads - conv->kernel) / conv->stride + 1,
                                .out_width = (width + pads - conv->kernel) / conv->stride + 1,
                                .out = conv->out_channels,
                                .kernel = conv->kernel,
                                .stride = conv->stride,
                                .pad_low = conv->pad_low,
                                .pad_high = conv->pad_high};
}

bool conv_weights_stay(const struct conv *conv)
{
    return tensor_here(&conv->weights->source);
}

const float *conv_bias(const struct conv *conv)
{
    return conv->weights->bias;
}

void conv_weights_destroy(struct cpu *c, struct conv_weights *weights)
{
    if (!weights)
        return;
    compute_gave(&c->base, weights->bytes);
    for (int i = 0; i < LAYOUTS_MAX; ++i)
        onednn_weights_free(weights->layouts[i].weights);
    free(weights->bias);
    free(weights);
}

static void count(const struct conv *conv, uint64_t bytes)
{
    conv->weights->bytes += bytes;
    compute_took(&conv->cpu->base, bytes);
}

/* A contiguous fp32 copy; NULL without memory. */
static float *plain_copy(const struct cpu *c, const attn_tensor *t)
{
    float *data = malloc((size_t)tensor_count(t) * sizeof *data);
    if (!data)
        return NULL;
    attn_tensor copy = tensor_of(data, &c->base.dtype, t->rank, t->shape);
    copy_convert(c, t, &copy);
    return data;
}

/* As the plan wants them, from the source. */
static attn_status pack(const struct conv *conv, const attn_tensor *source,
                        const struct conv_layout *to, struct onednn_weights **out, attn_error *err)
{
    struct cpu *c = conv->cpu;
    const bool ready = tensor_f32(source) && tensor_contiguous(source);
    const uint64_t bytes = ready ? 0 : (uint64_t)tensor_count(source) * sizeof(float);
    compute_took(&c->base, bytes);
    float *copy = ready ? NULL : plain_copy(c, source);
    attn_status status;
    if (ready || copy)
        status = onednn_weights_pack(to->plan, to->shape, copy ? copy : source->data, to->scratch,
                                     onednn_plan_scratch(to->plan), out, err);
    else
        status = attn_fail(err, ATTN_NOMEM, "conv: no memory for weights %s",
                           tensor_describe(source).text);
    free(copy);
    compute_gave(&c->base, bytes);
    return status;
}

static attn_status pack_usual(struct conv *conv, const attn_tensor *weight, attn_error *err)
{
    struct onednn_conv shape = conv_shape(conv, 1, USUAL_SIZE, USUAL_SIZE);
    struct onednn_plan *plan;
    attn_status status = onednn_conv_plan(conv->cpu->onednn, &shape, &plan, err);
    if (status != ATTN_OK)
        return status;
    const struct conv_layout usual = {.shape = &shape, .plan = plan};
    struct layout *first = &conv->weights->layouts[0];
    status = pack(conv, weight, &usual, &first->weights, err);
    onednn_plan_free(plan);
    if (status == ATTN_OK)
        count(conv, onednn_weights_bytes(first->weights));
    first->users = 1; /* the others are made from it: it never goes */
    return status;
}

attn_status conv_weights_create(struct conv *conv, const struct conv_desc *d, attn_error *err)
{
    struct cpu *c = conv->cpu;
    struct conv_weights *weights = conv->weights = calloc(1, sizeof *conv->weights);
    if (weights)
        weights->bias = tensor_here(d->bias) ? plain_copy(c, d->bias)
                                             : calloc((size_t)d->out_channels, sizeof(float));
    if (!weights || !weights->bias)
        return attn_fail(err, ATTN_NOMEM, "conv: no memory for weights %s",
                         tensor_describe(d->weight).text);
    count(conv, (uint64_t)d->out_channels * sizeof(float));
    if (!d->weight_read)
        return pack_usual(conv, d->weight, err);
    weights->source = *d->weight;
    weights->read = d->weight_read;
    weights->ctx = d->ctx;
    return ATTN_OK;
}

static attn_status layout_make(const struct conv *conv, const struct conv_layout *to,
                               struct onednn_weights **out, attn_error *err)
{
    struct conv_weights *weights = conv->weights;
    if (!tensor_here(&weights->source))
        return onednn_weights_repack(to->plan, weights->layouts[0].weights, out, err);
    attn_status status = pack(conv, &weights->source, to, out, err);
    weights->read(weights->ctx, &weights->source);
    return status;
}

/* A free one, made free if need be; NULL if runs read all of them. */
static struct layout *layout_free(const struct conv *conv)
{
    struct conv_weights *weights = conv->weights;
    struct layout *oldest = NULL;
    for (int i = 0; i < LAYOUTS_MAX; ++i) {
        struct layout *l = &weights->layouts[i];
        if (!l->weights)
            return l;
        if (!l->users && (!oldest || l->turn < oldest->turn))
            oldest = l;
    }
    if (oldest) {
        const uint64_t bytes = onednn_weights_bytes(oldest->weights);
        onednn_weights_free(oldest->weights);
        oldest->weights = NULL;
        weights->bytes -= bytes;
        compute_gave(&conv->cpu->base, bytes);
    }
    return oldest;
}

static struct layout *layout_find(const struct conv *conv, const struct conv_layout *to)
{
    for (int i = 0; i < LAYOUTS_MAX; ++i) {
        struct layout *l = &conv->weights->layouts[i];
        if (l->weights && onednn_weights_fit(to->plan, l->weights))
            return l;
    }
    return NULL;
}

const struct onednn_weights *conv_weights_use(attn_work *w, const struct conv *conv,
                                              const struct conv_layout *to)
{
    attn_status status = ATTN_OK;
    ATTN_ERROR_ON(err, 256);
    pthread_mutex_lock(&conv->cpu->lock);
    struct layout *l = layout_find(conv, to);
    if (!l) {
        l = layout_free(conv);
        if (l)
            status = layout_make(conv, to, &l->weights, &err);
        else
            status = attn_fail(&err, ATTN_NOMEM,
                               "conv: more than %d layouts of its weights at once", LAYOUTS_MAX);
        if (status == ATTN_OK)
            count(conv, onednn_weights_bytes(l->weights));
    }
    if (status == ATTN_OK) {
        ++l->users;
        l->turn = ++conv->weights->turns;
    }
    pthread_mutex_unlock(&conv->cpu->lock);
    if (status == ATTN_OK)
        return l->weights;
    work_fail(w, status, "%s", err.text);
    return NULL;
}

void conv_weights_done(const struct conv *conv, const struct onednn_weights *weights)
{
    pthread_mutex_lock(&conv->cpu->lock);
    for (int i = 0; i < LAYOUTS_MAX; ++i) {
        if (conv->weights->layouts[i].weights == weights)
            --conv->weights->layouts[i].users;
    }
    pthread_mutex_unlock(&conv->cpu->lock);
}
