#include "fake_cudnn.h"

#include <string.h>

struct fake_cudnn fake;

static int answer(void)
{
    fake.calls++;
    return fake.calls >= fake.fail_from && fake.calls <= fake.fail_to ? fake.code
                                                                      : CUDNN_STATUS_SUCCESS;
}

/* Its number, or 0 where there is none of it. */
static int number_of(cudnnBackendDescriptor_t descriptor)
{
    const uintptr_t n = (uintptr_t)descriptor;
    if (n > 0 && n < FAKE_MOST && fake.alive[n])
        return (int)n;
    fake.wrong++;
    return 0;
}

static int create(int kind, cudnnBackendDescriptor_t *descriptor)
{
    const int code = answer();
    if (code != CUDNN_STATUS_SUCCESS)
        return code;
    if (fake.made + 1 == FAKE_MOST)
        return CUDNN_STATUS_INTERNAL_ERROR;
    const int n = ++fake.made;
    fake.alive[n] = 1;
    fake.kind[n] = kind;
    *descriptor = (cudnnBackendDescriptor_t)(uintptr_t)n;
    return code;
}

static int destroy(cudnnBackendDescriptor_t descriptor)
{
    fake.alive[number_of(descriptor)] = 0;
    fake.destroyed++;
    return CUDNN_STATUS_SUCCESS;
}

static int set(cudnnBackendDescriptor_t descriptor, int name, int type, int64_t count,
               const void *elements)
{
    struct fake_tensor *t = &fake.tensors[number_of(descriptor)];
    (void)type;
    const size_t n = (size_t)count;
    if (name == CUDNN_ATTR_TENSOR_UNIQUE_ID)
        memcpy(&t->uid, elements, sizeof t->uid);
    if (name == CUDNN_ATTR_TENSOR_DATA_TYPE)
        memcpy(&t->type, elements, sizeof t->type);
    if (name == CUDNN_ATTR_TENSOR_DIMENSIONS)
        memcpy(t->dims, elements, n * sizeof t->dims[0]);
    if (name == CUDNN_ATTR_TENSOR_STRIDES)
        memcpy(t->strides, elements, n * sizeof t->strides[0]);
    if (name == CUDNN_ATTR_TENSOR_IS_BY_VALUE)
        memcpy(&t->by_value, elements, sizeof t->by_value);
    return answer();
}

static int finalize(cudnnBackendDescriptor_t descriptor)
{
    const int n = number_of(descriptor), code = answer();
    if (code == CUDNN_STATUS_SUCCESS && fake.kind[n] == CUDNN_BACKEND_EXECUTION_PLAN)
        fake.compiled++;
    return code;
}

static int get(cudnnBackendDescriptor_t descriptor, int name, int type, int64_t room,
               int64_t *count, void *elements)
{
    const int64_t bytes = FAKE_WORKSPACE;
    (void)number_of(descriptor);
    (void)type;
    (void)room;
    *count = 1;
    if (name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE)
        memcpy(elements, &bytes, sizeof bytes);
    return answer();
}

static const char *error_string(int code)
{
    return code == CUDNN_STATUS_HOST_ALLOCATION_FAILED ? "out of memory" : "not fine";
}

static void last_error(char *message, size_t bytes)
{
    (void)snprintf(message, bytes, "call %d", fake.calls);
}

const struct cudnn_api fake_api = {
    .cudnnGetErrorString = error_string,
    .cudnnGetLastErrorString = last_error,
    .cudnnBackendCreateDescriptor = create,
    .cudnnBackendDestroyDescriptor = destroy,
    .cudnnBackendSetAttribute = set,
    .cudnnBackendFinalize = finalize,
    .cudnnBackendGetAttribute = get,
};

const struct fake_tensor *fake_tensor_of(int64_t uid)
{
    for (int n = fake.made; n > 0; n--)
        if (fake.alive[n] && fake.kind[n] == CUDNN_BACKEND_TENSOR && fake.tensors[n].uid == uid)
            return &fake.tensors[n];
    return NULL;
}
