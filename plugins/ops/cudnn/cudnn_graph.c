/* One attention as cuDNN wants to see it: two matrix products with a softmax spelt out in pointwise
 * operations and reductions between them, which its fused engines recognise (cuDNN developer guide,
 * "Graph patterns: fused attention forward").
 *
 *   s = q k^T, scaled, keys after the diagonal hidden
 *   m = max s, e = exp(s - m), z = sum e, stats = m + log z, p = e / z rounded to q's type
 *   out = p v
 */
#include "cudnn.h"

#include <float.h>
#include <string.h>

/* First failure wins; later steps do nothing. */
struct build {
    struct cudnn_graph *graph;
    const struct cudnn_api *api;
    const struct cudnn_key *key;
    attn_error *err;
    attn_status status;
    int64_t next; /* number of the next virtual tensor */
    cudnnBackendDescriptor_t ops[24];
    int n_ops;
    int64_t score_dims[4], score_strides[4], row_dims[4], row_strides[4];
};

typedef cudnnBackendDescriptor_t tensor;

static void *make(struct build *b, int kind)
{
    cudnnBackendDescriptor_t made = NULL;
    if (b->status != ATTN_OK)
        return NULL;
    if (b->graph->n_made == CUDNN_MOST_DESCRIPTORS) {
        b->status = attn_fail(b->err, ATTN_INTERNAL, NAME ": more than %d descriptors",
                              CUDNN_MOST_DESCRIPTORS);
        return NULL;
    }
    int code = b->api->cudnnBackendCreateDescriptor(kind, &made);
    if (code != CUDNN_STATUS_SUCCESS) {
        b->status = cudnn_fail(b->api, b->err, "making a descriptor", code);
        return NULL;
    }
    b->graph->made[b->graph->n_made++] = made;
    return made;
}

static void set(struct build *b, void *to, int name, int type, int64_t count, const void *elements)
{
    if (b->status != ATTN_OK)
        return;
    int code = b->api->cudnnBackendSetAttribute(to, name, type, count, elements);
    if (code != CUDNN_STATUS_SUCCESS) {
        char what[48];
        (void)snprintf(what, sizeof what, "setting attribute %d", name);
        b->status = cudnn_fail(b->api, b->err, what, code);
    }
}

static void set_descriptor(struct build *b, void *to, int name, tensor value)
{
    set(b, to, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

static void finish(struct build *b, void *descriptor, const char *what)
{
    if (b->status != ATTN_OK)
        return;
    int code = b->api->cudnnBackendFinalize(descriptor);
    if (code != CUDNN_STATUS_SUCCESS)
        b->status = cudnn_fail(b->api, b->err, what, code);
}

/* ---- tensors ---- */

static tensor tensor_make(struct build *b, int64_t uid, int type, const int64_t *dims,
                          const int64_t *strides, int by_value)
{
    void *t = make(b, CUDNN_BACKEND_TENSOR);
    const int64_t align = by_value || uid == UID_STATS ? 4 : 16;
    const uint8_t is_virtual = uid >= UID_VIRTUAL, is_value = by_value != 0;
    set(b, t, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid);
    set(b, t, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    set(b, t, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &align);
    set(b, t, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims);
    set(b, t, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides);
    set(b, t, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual);
    set(b, t, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &is_value);
    finish(b, t, "a tensor");
    return t;
}

static tensor scores(struct build *b, int type)
{
    return tensor_make(b, b->next++, type, b->score_dims, b->score_strides, 0);
}

static tensor rows(struct build *b)
{
    return tensor_make(b, b->next++, CUDNN_DATA_FLOAT, b->row_dims, b->row_strides, 0);
}

/* a number that run gives on the host */
static tensor value(struct build *b, int64_t uid, int type)
{
    static const int64_t one[4] = {1, 1, 1, 1};
    return tensor_make(b, uid, type, one, one, 1);
}

static tensor given(struct build *b, int64_t uid, const struct cudnn_view *view)
{
    return tensor_make(b, uid, b->key->type, view->dims, view->strides, 0);
}

static tensor transposed(struct build *b, int64_t uid, const struct cudnn_view *v)
{
    const struct cudnn_view turned = {{v->dims[0], v->dims[1], v->dims[3], v->dims[2]},
                                      {v->strides[0], v->strides[1], v->strides[3], v->strides[2]}};
    return given(b, uid, &turned);
}

/* ---- operations ---- */

static void op_add(struct build *b, void *op, const char *what)
{
    finish(b, op, what);
    if (b->status == ATTN_OK)
        b->ops[b->n_ops++] = op;
}

static void product(struct build *b, tensor x, tensor y, tensor to)
{
    const int type = CUDNN_DATA_FLOAT;
    void *how = make(b, CUDNN_BACKEND_MATMUL);
    set(b, how, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    finish(b, how, "a matrix product");
    void *op = make(b, CUDNN_BACKEND_OPERATION_MATMUL);
    set_descriptor(b, op, CUDNN_ATTR_OPERATION_MATMUL_ADESC, x);
    set_descriptor(b, op, CUDNN_ATTR_OPERATION_MATMUL_BDESC, y);
    set_descriptor(b, op, CUDNN_ATTR_OPERATION_MATMUL_CDESC, to);
    set_descriptor(b, op, CUDNN_ATTR_OPERATION_MATMUL_DESC, how);
    op_add(b, op, "a matrix product's operation");
}

struct pointwise {
    int mode, type;
    int64_t axis;   /* of GEN_INDEX, else -1 */
    tensor x, y, t; /* y and t may be NULL */
};

static tensor pointwise(struct build *b, struct pointwise p, tensor to)
{
    void *how = make(b, CUDNN_BACKEND_POINTWISE);
    set(b, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &p.mode);
    set(b, how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &p.type);
    if (p.mode == CUDNN_POINTWISE_GEN_INDEX)
        set(b, how, CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, 1, &p.axis);
    finish(b, how, "a pointwise step");
    void *op = make(b, CUDNN_BACKEND_OPERATION_POINTWISE);
    set_descriptor(b, op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how);
    set_descriptor(b, op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, p.x);
    if (p.y)
        set_descriptor(b, op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, p.y);
    if (p.t)
        set_descriptor(b, op, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, p.t);
    set_descriptor(b, op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, to);
    op_add(b, op, "a pointwise operation");
    return to;
}

static tensor floats(struct build *b, int mode, tensor x, tensor y, tensor to)
{
    return pointwise(b, (struct pointwise){mode, CUDNN_DATA_FLOAT, -1, x, y, NULL}, to);
}

static tensor reduction(struct build *b, int mode, tensor x)
{
    const int type = CUDNN_DATA_FLOAT;
    tensor to = rows(b);
    void *how = make(b, CUDNN_BACKEND_REDUCTION);
    set(b, how, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &mode);
    set(b, how, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    finish(b, how, "a reduction");
    void *op = make(b, CUDNN_BACKEND_OPERATION_REDUCTION);
    set_descriptor(b, op, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x);
    set_descriptor(b, op, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, to);
    set_descriptor(b, op, CUDNN_ATTR_OPERATION_REDUCTION_DESC, how);
    op_add(b, op, "a reduction's operation");
    return to;
}

/* Scores of keys after row + Nk - Nq (or row) become the lowest number. */
static tensor hide(struct build *b, tensor s)
{
    const int i32 = CUDNN_DATA_INT32;
    tensor row = pointwise(
        b, (struct pointwise){CUDNN_POINTWISE_GEN_INDEX, CUDNN_DATA_FLOAT, 2, s, NULL, NULL},
        scores(b, i32));
    tensor key = pointwise(
        b, (struct pointwise){CUDNN_POINTWISE_GEN_INDEX, CUDNN_DATA_FLOAT, 3, s, NULL, NULL},
        scores(b, i32));
    if (b->key->shifted) {
        row = pointwise(
            b, (struct pointwise){CUDNN_POINTWISE_ADD, i32, -1, row, value(b, UID_NK, i32), NULL},
            scores(b, i32));
        row = pointwise(
            b, (struct pointwise){CUDNN_POINTWISE_SUB, i32, -1, row, value(b, UID_NQ, i32), NULL},
            scores(b, i32));
    }
    tensor seen = pointwise(
        b, (struct pointwise){CUDNN_POINTWISE_CMP_GE, CUDNN_DATA_BOOLEAN, -1, row, key, NULL},
        scores(b, CUDNN_DATA_BOOLEAN));
    return pointwise(b,
                     (struct pointwise){CUDNN_POINTWISE_BINARY_SELECT, CUDNN_DATA_FLOAT, -1, s,
                                        value(b, UID_HIDDEN, CUDNN_DATA_FLOAT), seen},
                     scores(b, CUDNN_DATA_FLOAT));
}

static void attention(struct build *b)
{
    const struct cudnn_key *key = b->key;
    const int f32 = CUDNN_DATA_FLOAT;
    tensor s = scores(b, f32);
    product(b, given(b, UID_Q, &key->q), transposed(b, UID_K, &key->k), s);
    s = floats(b, CUDNN_POINTWISE_MUL, s, value(b, UID_SCALE, f32), scores(b, f32));
    if (key->causal)
        s = hide(b, s);
    tensor max = reduction(b, CUDNN_REDUCE_TENSOR_MAX, s);
    tensor e = floats(b, CUDNN_POINTWISE_SUB, s, max, scores(b, f32));
    e = floats(b, CUDNN_POINTWISE_EXP, e, NULL, scores(b, f32));
    tensor sum = reduction(b, CUDNN_REDUCE_TENSOR_ADD, e);
    /* always there, as the engines look for it; virtual where nobody asked */
    tensor log = floats(b, CUDNN_POINTWISE_LOG, sum, NULL, rows(b));
    tensor stats = key->wants_stats
                       ? tensor_make(b, UID_STATS, f32, key->stats.dims, key->stats.strides, 0)
                       : rows(b);
    (void)floats(b, CUDNN_POINTWISE_ADD, max, log, stats);
    tensor p = floats(b, CUDNN_POINTWISE_DIV, e, sum, scores(b, key->type));
    product(b, p, given(b, UID_V, &key->v), given(b, UID_OUT, &key->out));
}

/* The best engine that compiles, in the order of cuDNN's own heuristics. */
static void compile(struct build *b, cudnnHandle_t handle, void *graph)
{
    const int mode = CUDNN_HEUR_MODE_A;
    void *heuristics = make(b, CUDNN_BACKEND_ENGINEHEUR),
         *config = make(b, CUDNN_BACKEND_ENGINECFG);
    int64_t found = 0;
    set_descriptor(b, heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
    set(b, heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    finish(b, heuristics, "asking for engines");
    if (b->status != ATTN_OK)
        return;
    int code = b->api->cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                                CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &found, &config);
    if (code != CUDNN_STATUS_SUCCESS || found < 1) {
        b->status = cudnn_fail(b->api, b->err, "no engine takes this attention",
                               code ? code : CUDNN_STATUS_NOT_SUPPORTED);
        return;
    }
    void *plan = make(b, CUDNN_BACKEND_EXECUTION_PLAN);
    set(b, plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
    set_descriptor(b, plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
    finish(b, plan, "compiling the plan");
    if (b->status != ATTN_OK)
        return;
    code = b->api->cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                            CUDNN_TYPE_INT64, 1, &found, &b->graph->workspace);
    if (code != CUDNN_STATUS_SUCCESS)
        b->status = cudnn_fail(b->api, b->err, "reading the workspace's size", code);
    b->graph->plan = plan;
}

/* cuDNN wants a stride also where a dimension has one element. */
static struct cudnn_view view_of(const attn_tensor *t)
{
    struct cudnn_view view;
    int64_t step = 1;
    for (int i = 3; i >= 0; i--) {
        const int64_t n = (uint32_t)i < t->rank ? t->shape[i] : 1;
        view.dims[i] = n;
        view.strides[i] = n > 1 ? t->stride[i] : step;
        if (n * view.strides[i] > step)
            step = n * view.strides[i];
    }
    return view;
}

struct cudnn_key cudnn_graph_key(const attn_op_call *call, const struct cudnn_call *what)
{
    _Static_assert(sizeof(struct cudnn_key) == 5 * sizeof(struct cudnn_view) + 4 * sizeof(int32_t),
                   "keys are compared as bytes");
    struct cudnn_key key = {
        .q = view_of(&call->q),
        .k = view_of(&call->k),
        .v = view_of(&call->v),
        .out = view_of(&call->out),
        .type = call->q.code == ATTN_CODE_BFLOAT ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_HALF,
        .causal = what->causal != 0,
        .shifted = what->shift != 0,
        .wants_stats = what->stats != 0,
    };
    if (what->stats)
        key.stats = view_of(&call->lse);
    return key;
}

static void packed(const int64_t dims[4], int64_t strides[4])
{
    int64_t step = 1;
    for (int i = 3; i >= 0; i--) {
        strides[i] = step;
        step *= dims[i];
    }
}

attn_status cudnn_graph_open(struct cudnn_graph *graph, const struct cudnn_api *api,
                             cudnnHandle_t handle, const struct cudnn_key *key, attn_error *err)
{
    const int64_t *q = key->q.dims, nk = key->k.dims[2];
    struct build b = {.graph = graph,
                      .api = api,
                      .key = key,
                      .err = err,
                      .next = UID_VIRTUAL,
                      .score_dims = {q[0], q[1], q[2], nk},
                      .row_dims = {q[0], q[1], q[2], 1}};
    packed(b.score_dims, b.score_strides);
    packed(b.row_dims, b.row_strides);
    memset(graph, 0, sizeof *graph);
    graph->api = api;
    attention(&b);
    void *all = make(&b, CUDNN_BACKEND_OPERATIONGRAPH);
    set(&b, all, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, b.n_ops, b.ops);
    set(&b, all, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
    finish(&b, all, "the graph");
    compile(&b, handle, all);
    if (b.status != ATTN_OK)
        cudnn_graph_close(graph);
    return b.status;
}

void cudnn_graph_close(struct cudnn_graph *graph)
{
    while (graph->n_made > 0)
        (void)graph->api->cudnnBackendDestroyDescriptor(graph->made[--graph->n_made]);
    graph->plan = NULL;
}
