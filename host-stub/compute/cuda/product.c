/* product.c: products of matrices by cuBLASLt.
 *
 * cuBLASLt counts columns first: its D is y transposed, so that y = x weight' is D = weight x' with
 * the weight transposed, and a bias along y's columns is the bias along D's rows that its epilogue
 * adds.  fp32 is computed in fp32, without TF32; halves are summed in fp32. */
#include "cuda.h"

#include <stdlib.h>

struct plan {
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t weight, x, c, y;
    cublasLtMatmulAlgo_t algorithm;
    uint64_t workspace;
};

/* What a plan depends on. */
struct shape {
    int64_t rows, columns, depth;
    int64_t x_stride, weight_stride, c_stride, y_stride; /* c_stride 0: no c */
    uint32_t x_align, weight_align, c_align, y_align;
    int32_t bias;
    cudaDataType_t type;
};

static attn_status blas_check(const struct cuda *c, attn_error *err, const char *what,
                              cublasStatus_t code)
{
    if (code == CUBLAS_STATUS_SUCCESS)
        return ATTN_OK;
    if (err && err->size >= sizeof *err)
        err->vendor_code = code;
    return attn_fail(err, blas_status(code), "device cuda: %s: %s", what,
                     c->lib.cublasLtGetStatusString(code));
}

/* -- tensors as matrices ----------------------------------------------------------------------- */

int64_t row_stride(const attn_tensor *t)
{
    const int64_t length = tensor_last(t);
    int64_t stride = 0, inner = 0; /* of the rows; of all dimensions so far */
    for (uint32_t i = t->rank - 1; i-- > 0;) {
        if (t->shape[i] == 1)
            continue;
        if (stride == 0)
            stride = inner = t->stride[i];
        else if (t->stride[i] != inner)
            return -1;
        inner *= t->shape[i];
    }
    if (stride == 0)
        return length;
    return stride >= length ? stride : -1;
}

bool is_ready(const struct compute *c, const attn_tensor *t)
{
    return tensor_is(t, c->dtype.code, c->dtype.bits) && tensor_last_contiguous(t) &&
           row_stride(t) >= 0;
}

attn_tensor ready_input(attn_work *w, const attn_tensor *t)
{
    if (is_ready(work_compute(w), t))
        return *t;
    attn_tensor copy = work_take(w, NULL, t->rank, t->shape);
    cuda_copy(w, t, &copy);
    return copy;
}

static uint32_t align_of(const attn_tensor *t)
{
    uint32_t least = t->bits / 8u;
    return t->align > 256 ? 256 : t->align > least ? t->align : least;
}

static cudaDataType_t type_of(const attn_tensor *t)
{
    return t->bits == 32 ? CUDA_R_32F : t->code == ATTN_CODE_BFLOAT ? CUDA_R_16BF : CUDA_R_16F;
}

static struct shape shape_of(const struct product *p)
{
    int64_t columns = tensor_last(p->y);
    struct shape s = {.rows = columns ? tensor_count(p->y) / columns : 0,
                      .columns = columns,
                      .depth = tensor_last(p->x),
                      .x_stride = row_stride(p->x),
                      .weight_stride = row_stride(p->weight),
                      .c_stride = p->c ? row_stride(p->c) : 0,
                      .y_stride = row_stride(p->y),
                      .x_align = align_of(p->x),
                      .weight_align = align_of(p->weight),
                      .c_align = align_of(p->c ? p->c : p->y),
                      .y_align = align_of(p->y),
                      .bias = p->bias != NULL,
                      .type = type_of(p->y)};
    return s;
}

/* -- plans ------------------------------------------------------------------------------------- */

static void plan_free(struct cuda *c, struct plan *p)
{
    const cublasLtMatrixLayout_t layouts[] = {p->weight, p->x, p->c, p->y};
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; ++i)
        if (layouts[i])
            (void)c->lib.cublasLtMatrixLayoutDestroy(layouts[i]);
    if (p->operation)
        (void)c->lib.cublasLtMatmulDescDestroy(p->operation);
    free(p);
}

static void plan_release(struct compute *c, void *plan)
{
    plan_free((struct cuda *)c, plan);
}

static cublasStatus_t describe(const struct cuda *c, struct plan *p, const struct shape *s)
{
    const struct cuda_libraries *l = &c->lib;
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const cublasLtEpilogue_t epilogue =
        s->bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    const struct {
        cublasLtMatrixLayout_t *layout;
        int64_t rows, columns, stride;
    } layouts[] = {{&p->weight, s->depth, s->columns, s->weight_stride},
                   {&p->x, s->depth, s->rows, s->x_stride},
                   {&p->c, s->columns, s->rows, s->c_stride ? s->c_stride : s->y_stride},
                   {&p->y, s->columns, s->rows, s->y_stride}};
    cublasStatus_t code =
        l->cublasLtMatmulDescCreate(&p->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = l->cublasLtMatmulDescSetAttribute(p->operation, CUBLASLT_MATMUL_DESC_TRANSA,
                                                 &transposed, sizeof transposed);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = l->cublasLtMatmulDescSetAttribute(p->operation, CUBLASLT_MATMUL_DESC_EPILOGUE,
                                                 &epilogue, sizeof epilogue);
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts && code == CUBLAS_STATUS_SUCCESS; ++i)
        code = l->cublasLtMatrixLayoutCreate(layouts[i].layout, s->type, (uint64_t)layouts[i].rows,
                                             (uint64_t)layouts[i].columns, layouts[i].stride);
    return code;
}

static cublasStatus_t prefer(const struct cuda *c, cublasLtMatmulPreference_t preference,
                             const struct shape *s)
{
    const uint64_t workspace = WORKSPACE_BYTES;
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        const void *value;
        size_t bytes;
    } attributes[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &s->weight_align, sizeof s->weight_align},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &s->x_align, sizeof s->x_align},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &s->c_align, sizeof s->c_align},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &s->y_align, sizeof s->y_align},
    };
    cublasStatus_t code = CUBLAS_STATUS_SUCCESS;
    for (size_t i = 0; i < sizeof attributes / sizeof *attributes && code == CUBLAS_STATUS_SUCCESS;
         ++i)
        code = c->lib.cublasLtMatmulPreferenceSetAttribute(
            preference, attributes[i].name, attributes[i].value, attributes[i].bytes);
    return code;
}

static cublasStatus_t choose(const struct cuda *c, struct plan *p, const struct shape *s)
{
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t best;
    int found = 0;
    cublasStatus_t code = c->lib.cublasLtMatmulPreferenceCreate(&preference);
    if (code != CUBLAS_STATUS_SUCCESS)
        return code;
    code = prefer(c, preference, s);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = c->lib.cublasLtMatmulAlgoGetHeuristic(c->blas, p->operation, p->weight, p->x, p->c,
                                                     p->y, preference, 1, &best, &found);
    (void)c->lib.cublasLtMatmulPreferenceDestroy(preference);
    if (code == CUBLAS_STATUS_SUCCESS && !found)
        code = CUBLAS_STATUS_NOT_SUPPORTED;
    if (code == CUBLAS_STATUS_SUCCESS) {
        p->algorithm = best.algo;
        p->workspace = best.workspaceSize;
    }
    return code;
}

static struct plan *plan_make(attn_work *w, const struct shape *s, const struct plan_key *key)
{
    struct cuda *c = cuda_of(w);
    ATTN_ERROR_ON(why, 256);
    struct plan *p = calloc(1, sizeof *p);
    if (!p) {
        work_fail(w, ATTN_NOMEM, "linear: no memory for a plan");
        return NULL;
    }
    cublasStatus_t code = describe(c, p, s);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = choose(c, p, s);
    if (code != CUBLAS_STATUS_SUCCESS) {
        attn_status status = blas_check(c, &why, "planning a product of matrices", code);
        work_fail(w, status, "%s (%lld rows, %lld columns, depth %lld)", why.text,
                  (long long)s->rows, (long long)s->columns, (long long)s->depth);
        plan_free(c, p);
        return NULL;
    }
    return plan_keep(w, key, p, plan_release) == ATTN_OK ? p : NULL;
}

static struct plan *plan_of(attn_work *w, const struct shape *s)
{
    struct plan_key key;
    key_begin(&key, "product");
    const int64_t numbers[] = {s->rows,          s->columns,  s->depth,    s->x_stride,
                               s->weight_stride, s->c_stride, s->y_stride, s->x_align,
                               s->weight_align,  s->c_align,  s->y_align,  s->bias,
                               s->type};
    key_bytes(&key, numbers, sizeof numbers);
    struct plan *plan = plan_find(work_pass(w), &key);
    if (plan)
        return plan;
    if (work_dry(w))
        return plan_make(w, s, &key);
    work_fail(w, ATTN_INTERNAL, "linear: no dry run planned %lld rows, %lld columns, depth %lld",
              (long long)s->rows, (long long)s->columns, (long long)s->depth);
    return NULL;
}

/* -- run --------------------------------------------------------------------------------------- */

static attn_status multiply(attn_work *w, const struct plan *plan, const struct product *p)
{
    struct cuda *c = cuda_of(w);
    const float beta = p->c ? p->beta : 0.0f;
    cublasStatus_t code = CUBLAS_STATUS_SUCCESS;
    if (p->bias)
        code = c->lib.cublasLtMatmulDescSetAttribute(
            plan->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p->bias->data, sizeof(void *));
    if (code == CUBLAS_STATUS_SUCCESS)
        code = c->lib.cublasLtMatmul(c->blas, plan->operation, &p->alpha, p->weight->data,
                                     plan->weight, p->x->data, plan->x, &beta,
                                     p->c ? p->c->data : p->y->data, plan->c, p->y->data, plan->y,
                                     &plan->algorithm, c->workspace, plan->workspace, stream_of(w));
    ATTN_ERROR_ON(why, 256);
    attn_status status = blas_check(c, &why, "a product of matrices", code);
    return status == ATTN_OK ? w->status : work_fail(w, status, "%s", why.text);
}

attn_status product_run(attn_work *w, const struct product *asked)
{
    struct product p = *asked;
    uint64_t mark = work_mark(w);
    if (w->status != ATTN_OK || !tensor_count(p.y))
        return w->status;
    attn_tensor weight = ready_input(w, p.weight), bias = {0};
    p.weight = &weight;
    p.bias = tensor_here(p.bias) ? p.bias : NULL;
    if (p.bias) {
        bias = ready_input(w, p.bias);
        p.bias = &bias;
    }
    const struct shape s = shape_of(&p);
    const struct plan *plan = w->status == ATTN_OK ? plan_of(w, &s) : NULL;
    if (plan && !work_dry(w))
        multiply(w, plan, &p);
    work_reset(w, mark);
    return w->status;
}
