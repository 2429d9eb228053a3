#include "rule.h"

#include <stdlib.h>
#include <string.h>

void use_shape(struct use *u, enum slot slot, uint64_t rank, int64_t a, int64_t b, int64_t c,
               int64_t d)
{
    const int64_t shape[4] = {a, b, c, d};
    memcpy(u->spec[slot].shape, shape, sizeof shape);
    u->spec[slot].rank = rank;
}

void use_type(struct use *u, int32_t type)
{
    u->spec[QUERY].type = u->spec[KEY].type = u->spec[VALUE].type = u->spec[OUT].type = type;
}

void use_default(struct use *u)
{
    *u = (struct use){.scale = 0.35,
                      .keep_prob = 1.0,
                      .pre_tokens = INT32_MAX,
                      .next_tokens = INT32_MAX,
                      .heads = 4,
                      .layout = "BNSD"};
    use_shape(u, QUERY, 4, 2, 4, 6, 8);
    use_shape(u, KEY, 4, 2, 4, 5, 8);
    use_shape(u, VALUE, 4, 2, 4, 5, 8);
    use_shape(u, OUT, 4, 2, 4, 6, 8);
    use_shape(u, MAX, 4, 2, 4, 6, 8);
    use_shape(u, SUM, 4, 2, 4, 6, 8);
    use_type(u, ACL_FLOAT16);
    u->spec[PSE].type = ACL_FLOAT16;
    u->spec[MASK].type = ACL_BOOL;
    u->spec[MAX].type = u->spec[SUM].type = ACL_FLOAT;
}

void use_mask(struct use *u, uint64_t rank, int64_t a, int64_t b, int64_t c, int64_t d)
{
    use_shape(u, MASK, rank, a, b, c, d);
}

static size_t type_bytes(int32_t type)
{
    return type == ACL_FLOAT || type == 9 ? 4 : type == ACL_FLOAT16 || type == ACL_BF16 ? 2 : 1;
}

static void slot_begin(struct use *u, int i)
{
    struct operand_spec *s = &u->spec[i];
    int64_t n = 1, stride[4];
    for (uint64_t k = s->rank; k-- > 0;) {
        stride[k] = n;
        n *= s->shape[k];
    }
    size_t bytes = (size_t)n * type_bytes(s->type) + 64;
    char *host = calloc(1, bytes);
    for (int64_t k = 0; i == MASK && s->rank == 2 && k < n; k++)
        host[k] = (char)(k % s->shape[1] > k / s->shape[1]); /* the triangle */
    if (!host || RUNTIME(aclrtMalloc)(&u->data[i], bytes, ACL_MEM_MALLOC_HUGE_FIRST) ||
        RUNTIME(aclrtMemcpy)(u->data[i], bytes, host, bytes, ACL_MEMCPY_HOST_TO_DEVICE))
        abort();
    free(host);
    u->tensor[i] =
        DESCRIPTORS(aclCreateTensor)(s->shape, s->rank, s->type, stride, 0, ACL_FORMAT_ND, s->shape,
                                     s->rank, (char *)u->data[i] + s->shift);
}

void use_begin(struct use *u)
{
    for (int i = 0; i < SLOTS; i++)
        if (u->spec[i].rank)
            slot_begin(u, i);
}

int32_t use_size(struct use *u)
{
    aclTensor **t = u->tensor;
    int32_t code = OPERATORS(aclnnFlashAttentionScoreGetWorkspaceSize)(
        t[QUERY], t[KEY], t[VALUE], t[PSE], NULL, NULL, t[MASK], NULL, u->scale, u->keep_prob,
        u->pre_tokens, u->next_tokens, u->heads, u->no_layout ? NULL : u->layout, u->inner_precise,
        u->sparse_mode, t[MAX], t[SUM], t[SOFTMAX_OUT], t[OUT],
        u->no_workspace_size ? NULL : &u->workspace_bytes, u->no_executor ? NULL : &u->executor);
    if (code == 0 && u->workspace_bytes &&
        RUNTIME(aclrtMalloc)(&u->workspace, u->workspace_bytes, ACL_MEM_MALLOC_HUGE_FIRST))
        abort();
    return code;
}

int32_t use_launch(struct use *u, aclrtStream stream)
{
    aclOpExecutor *executor = u->executor;
    u->executor = NULL;
    return OPERATORS(aclnnFlashAttentionScore)(u->workspace, u->workspace_bytes, executor, stream);
}

int32_t use_wait(aclrtStream stream)
{
    return RUNTIME(aclrtSynchronizeStream)(stream);
}

void use_end(struct use *u)
{
    if (u->executor)
        (void)DESCRIPTORS(aclDestroyAclOpExecutor)(u->executor);
    if (u->workspace)
        (void)RUNTIME(aclrtFree)(u->workspace);
    for (int i = 0; i < SLOTS; i++) {
        if (u->tensor[i])
            (void)DESCRIPTORS(aclDestroyTensor)(u->tensor[i]);
        if (u->data[i])
            (void)RUNTIME(aclrtFree)(u->data[i]);
    }
}

int32_t use_all(struct use *u)
{
    use_begin(u);
    int32_t code = use_size(u);
    if (!code)
        code = use_launch(u, NULL);
    if (!code)
        code = use_wait(NULL);
    use_end(u);
    return code;
}
