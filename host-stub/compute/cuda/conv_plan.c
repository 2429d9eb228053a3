/* conv_plan.c: one convolution of fixed shapes as a graph of cuDNN: which engine computes it.
 *
 * Engines come from cuDNN's heuristics, best first.  Those that round more than the element type
 * does are passed over (TF32 for fp32, Winograd, sums in halves), as are those that would compile a
 * kernel at run time, which takes seconds, and those that do not give the same bits each time.
 * Bias and residual are fused where an engine takes them so. */
#include "dnn.h"

#include <stdlib.h>

#define ENGINES_MAX 24
#define SCRATCH_MAX (UINT64_C(256) << 20)

enum { ID_X = 1, ID_WEIGHT, ID_BIAS, ID_RESIDUAL, ID_Y };

/* How much of what follows the convolution goes into its graph. */
enum fusion { FUSE_ALL, FUSE_BIAS, FUSE_NONE };

struct conv_plan {
    struct conv_shape shape;
    struct dnn_graph graph;
    enum fusion fusion;
    cudnnBackendDescriptor_t plan;
    int64_t scratch;
    int64_t engine; /* cuDNN's number of it */
};

static attn_status dnn_check(const struct cuda *c, attn_error *err, const char *what,
                             cudnnStatus_t code)
{
    if (code == CUDNN_STATUS_SUCCESS)
        return ATTN_OK;
    if (err && err->size >= sizeof *err)
        err->vendor_code = code;
    return attn_fail(err, dnn_status(code), "device cuda: %s: %s", what,
                     c->lib.cudnnGetErrorString(code));
}

/* -- the graph --------------------------------------------------------------------------------- */

static cudnnDataType_t type_of(const struct cuda *c)
{
    return c->base.dtype.bits == 32                 ? CUDNN_DATA_FLOAT
           : c->base.dtype.code == ATTN_CODE_BFLOAT ? CUDNN_DATA_BFLOAT16
                                                    : CUDNN_DATA_HALF;
}

/* A picture whose pixels lie `pixel` elements apart, in cuDNN's order of dimensions. */
static cudnnBackendDescriptor_t picture(struct dnn_graph *g, int64_t id, cudnnDataType_t type,
                                        const int64_t dims[4], int64_t pixel)
{
    const int64_t strides[4] = {dims[2] * dims[3] * pixel, 1, dims[3] * pixel, pixel};
    return dnn_tensor(g, id, type, dims, strides);
}

static cudnnBackendDescriptor_t convolution(struct dnn_graph *g, const struct conv_shape *s,
                                            cudnnBackendDescriptor_t x,
                                            cudnnBackendDescriptor_t weight,
                                            cudnnBackendDescriptor_t y)
{
    const cudnnDataType_t compute = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const int64_t spatial = 2, ones[2] = {1, 1}, strides[2] = {s->stride, s->stride};
    const int64_t low[2] = {s->pad_low, s->pad_low}, high[2] = {s->pad_high, s->pad_high};
    const float alpha = 1.0f, beta = 0.0f;
    cudnnBackendDescriptor_t d = dnn_new(g, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    dnn_set(g, d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &spatial);
    dnn_set(g, d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute);
    dnn_set(g, d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    dnn_set(g, d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, low);
    dnn_set(g, d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, high);
    dnn_set(g, d, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, ones);
    dnn_set(g, d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, strides);
    dnn_finish(g, d);
    cudnnBackendDescriptor_t op =
        dnn_new(g, CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
    dnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, x);
    dnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, weight);
    dnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, y);
    dnn_set_descriptor(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, d);
    dnn_set(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, 1, &alpha);
    dnn_set(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, 1, &beta);
    dnn_finish(g, op);
    return op;
}

static cudnnBackendDescriptor_t operations_of(struct conv_plan *p)
{
    struct dnn_graph *g = &p->graph;
    const struct conv_shape *s = &p->shape;
    const cudnnDataType_t type = type_of(g->cuda), wide = CUDNN_DATA_FLOAT;
    const bool add = conv_plan_adds(p), bias = conv_plan_biases(p);
    const int64_t x_dims[4] = {s->batch, s->in, s->height, s->width};
    const int64_t y_dims[4] = {s->batch, s->out, s->out_height, s->out_width};
    const int64_t w_dims[4] = {s->out, s->in, s->kernel, s->kernel};
    const int64_t w_strides[4] = {s->kernel * s->kernel * s->in, 1, s->kernel * s->in, s->in};
    const int64_t b_dims[4] = {1, s->out, 1, 1};
    cudnnBackendDescriptor_t ops[3];
    int64_t n = 0;
    cudnnBackendDescriptor_t x = picture(g, ID_X, type, x_dims, s->x_pixel);
    cudnnBackendDescriptor_t weight = dnn_tensor(g, ID_WEIGHT, type, w_dims, w_strides);
    cudnnBackendDescriptor_t y = picture(g, ID_Y, type, y_dims, s->out);
    cudnnBackendDescriptor_t now = add || bias ? picture(g, 0, wide, y_dims, s->out) : y;
    ops[n++] = convolution(g, s, x, weight, now);
    if (add) {
        cudnnBackendDescriptor_t r = picture(g, ID_RESIDUAL, type, y_dims, s->out);
        cudnnBackendDescriptor_t next = bias ? picture(g, 0, wide, y_dims, s->out) : y;
        ops[n++] = dnn_add(g, now, r, next);
        now = next;
    }
    if (bias)
        ops[n++] = dnn_add(g, now, picture(g, ID_BIAS, type, b_dims, s->out), y);
    cudnnBackendDescriptor_t all = dnn_new(g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    dnn_set(g, all, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, n,
            (const void *)ops);
    dnn_set(g, all, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1,
            (const void *)&g->cuda->dnn);
    dnn_finish(g, all);
    return all;
}

/* -- engines ----------------------------------------------------------------------------------- */

/* Whether an engine has a note of a kind that rules it out. */
static bool has_note(struct dnn_graph *g, cudnnBackendDescriptor_t engine,
                     cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                     uint32_t refused)
{
    uint32_t notes[16]; /* enums of cuDNN are unsigned ints */
    int64_t n = 0;
    if (g->code == CUDNN_STATUS_SUCCESS)
        g->code = g->cuda->lib.cudnnBackendGetAttribute(engine, name, type, 16, &n, notes);
    for (int64_t i = 0; i < n && i < 16; ++i)
        if (notes[i] < 32 && (refused >> notes[i] & 1u))
            return true;
    return g->code != CUDNN_STATUS_SUCCESS;
}

static bool engine_fits(struct conv_plan *p, cudnnBackendDescriptor_t config)
{
    struct dnn_graph *g = &p->graph;
    const uint32_t exact =
        1u << CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS |
        1u << CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION | 1u << CUDNN_NUMERICAL_NOTE_FFT |
        1u << CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC | 1u << CUDNN_NUMERICAL_NOTE_WINOGRAD;
    const uint32_t tf32 =
        type_of(g->cuda) == CUDNN_DATA_FLOAT ? 1u << CUDNN_NUMERICAL_NOTE_TENSOR_CORE : 0;
    cudnnBackendDescriptor_t engine = dnn_new(g, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    int64_t n = 0;
    if (g->code == CUDNN_STATUS_SUCCESS)
        g->code = g->cuda->lib.cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE,
                                                        CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &n,
                                                        (void *)&engine);
    if (has_note(g, engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                 exact | tf32) ||
        has_note(g, engine, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE,
                 1u << CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION))
        return false;
    g->code = g->cuda->lib.cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX,
                                                    CUDNN_TYPE_INT64, 1, &n, &p->engine);
    return g->code == CUDNN_STATUS_SUCCESS;
}

/* Makes the plan of one engine; what it made is dropped again if it cannot compute this. */
static bool engine_take(struct conv_plan *p, cudnnBackendDescriptor_t config)
{
    struct dnn_graph *g = &p->graph;
    const uint32_t keep = g->n;
    int64_t n = 0;
    if (!engine_fits(p, config))
        goto fail;
    p->plan = dnn_new(g, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    dnn_set(g, p->plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1,
            (const void *)&g->cuda->dnn);
    dnn_set_descriptor(g, p->plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
    dnn_finish(g, p->plan);
    if (g->code == CUDNN_STATUS_SUCCESS)
        g->code =
            g->cuda->lib.cudnnBackendGetAttribute(p->plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                                  CUDNN_TYPE_INT64, 1, &n, &p->scratch);
    if (g->code == CUDNN_STATUS_SUCCESS && p->scratch <= (int64_t)SCRATCH_MAX)
        return true;
fail:
    dnn_drop(g, keep);
    g->code = CUDNN_STATUS_SUCCESS;
    p->plan = NULL;
    return false;
}

static bool engine_find(struct conv_plan *p, cudnnBackendDescriptor_t operations,
                        cudnnBackendHeurMode_t mode)
{
    struct dnn_graph *g = &p->graph;
    cudnnBackendDescriptor_t configs[ENGINES_MAX];
    int64_t n = 0;
    cudnnBackendDescriptor_t heuristic = dnn_new(g, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    dnn_set_descriptor(g, heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, operations);
    dnn_set(g, heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    dnn_finish(g, heuristic);
    for (int i = 0; i < ENGINES_MAX; ++i)
        configs[i] = dnn_new(g, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    if (g->code == CUDNN_STATUS_SUCCESS)
        g->code = g->cuda->lib.cudnnBackendGetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                                        CUDNN_TYPE_BACKEND_DESCRIPTOR, ENGINES_MAX,
                                                        &n, (void *)configs);
    for (int64_t i = 0; i < n && i < ENGINES_MAX && g->code == CUDNN_STATUS_SUCCESS; ++i)
        if (engine_take(p, configs[i]))
            return true;
    return false;
}

static bool fusion_try(struct conv_plan *p, enum fusion fusion)
{
    static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
    struct dnn_graph *g = &p->graph;
    for (size_t i = 0; i < sizeof modes / sizeof *modes; ++i) {
        p->fusion = fusion;
        g->code = CUDNN_STATUS_SUCCESS;
        cudnnBackendDescriptor_t operations = operations_of(p);
        if (g->code == CUDNN_STATUS_SUCCESS && engine_find(p, operations, modes[i]))
            return true;
        dnn_drop(g, 0);
    }
    return false;
}

static void plan_log(const struct cuda *c, const struct conv_plan *p)
{
    static const char *const fusions[] = {"bias and residual fused", "bias fused", "nothing fused"};
    const struct conv_shape *s = &p->shape;
    char text[256];
    if (!c->base.log)
        return;
    (void)snprintf(text, sizeof text,
                   "conv %lldx%lld/%lld %lldx%lldx%lldx%lld to %lld%s: engine %lld, %s, %lld bytes "
                   "of scratch",
                   (long long)s->kernel, (long long)s->kernel, (long long)s->stride,
                   (long long)s->batch, (long long)s->height, (long long)s->width, (long long)s->in,
                   (long long)s->out, s->residual ? " + residual" : "", (long long)p->engine,
                   fusions[p->fusion], (long long)p->scratch);
    c->base.log(c->base.log_ctx, 3, text);
}

attn_status conv_plan_create(struct cuda *c, const struct conv_shape *shape, struct conv_plan **out,
                             attn_error *err)
{
    struct conv_plan *p = calloc(1, sizeof *p);
    if (!p)
        return attn_fail(err, ATTN_NOMEM, "conv: no memory for a plan");
    p->shape = *shape;
    p->graph.cuda = c;
    bool found = shape->residual && fusion_try(p, FUSE_ALL);
    found = found || (shape->bias && fusion_try(p, FUSE_BIAS));
    found = found || fusion_try(p, FUSE_NONE);
    if (!found) {
        attn_status status = attn_fail(
            err, ATTN_UNSUPPORTED,
            "conv: cuDNN has no engine for %lldx%lldx%lldx%lld to %lld channels, kernel %lld",
            (long long)shape->batch, (long long)shape->height, (long long)shape->width,
            (long long)shape->in, (long long)shape->out, (long long)shape->kernel);
        conv_plan_destroy(p);
        return status;
    }
    plan_log(c, p);
    *out = p;
    return ATTN_OK;
}

void conv_plan_destroy(struct conv_plan *p)
{
    if (!p)
        return;
    dnn_drop(&p->graph, 0);
    free(p);
}

uint64_t conv_plan_scratch(const struct conv_plan *p)
{
    return (uint64_t)p->scratch;
}

bool conv_plan_adds(const struct conv_plan *p)
{
    return p->fusion == FUSE_ALL && p->shape.residual;
}

bool conv_plan_biases(const struct conv_plan *p)
{
    return p->fusion != FUSE_NONE && p->shape.bias;
}

/* -- run --------------------------------------------------------------------------------------- */

static cudnnStatus_t execute(struct cuda *c, const struct conv_plan *p,
                             const struct conv_buffers *b, cudaStream_t stream)
{
    struct dnn_graph g = {.cuda = c};
    int64_t ids[5] = {ID_X, ID_WEIGHT, ID_Y}, n = 3;
    void *data[5] = {b->x, b->weight, b->y};
    if (conv_plan_adds(p)) {
        ids[n] = ID_RESIDUAL;
        data[n++] = b->residual;
    }
    if (conv_plan_biases(p)) {
        ids[n] = ID_BIAS;
        data[n++] = b->bias;
    }
    cudnnBackendDescriptor_t pack = dnn_new(&g, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    dnn_set(&g, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, n, ids);
    dnn_set(&g, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, n,
            (const void *)data);
    dnn_set(&g, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1,
            (const void *)&b->scratch);
    dnn_finish(&g, pack);
    pthread_mutex_lock(&c->dnn_lock);
    if (g.code == CUDNN_STATUS_SUCCESS)
        g.code = c->lib.cudnnSetStream(c->dnn, stream);
    if (g.code == CUDNN_STATUS_SUCCESS)
        g.code = c->lib.cudnnBackendExecute(c->dnn, p->plan, pack);
    pthread_mutex_unlock(&c->dnn_lock);
    dnn_drop(&g, 0);
    return g.code;
}

attn_status conv_plan_run(attn_work *w, const struct conv_plan *p, const struct conv_buffers *b)
{
    struct cuda *c = cuda_of(w);
    ATTN_ERROR_ON(why, 256);
    attn_status status = dnn_check(c, &why, "a convolution", execute(c, p, b, stream_of(w)));
    return status == ATTN_OK ? w->status : work_fail(w, status, "%s", why.text);
}
