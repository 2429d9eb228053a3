/* stream.c: queues whose work is done when somebody waits for it, and not before. */
#include "core.h"

#include <stdlib.h>
#include <string.h>

enum { STREAM_NOT_IN_CONTEXT = 107003 };

struct item {
    struct item *next;
    struct aclOpExecutor *executor;
    uint64_t workspace;
};

struct stream {
    struct stream *next;
    void *context; /* NULL: the default stream, which is every context's */
    struct item *first, **last;
    int32_t failed; /* of the device, told at the next wait */
};

static struct stream default_stream = {.last = &default_stream.first};
static struct stream *streams = &default_stream;

/* NULL: no such stream. */
static struct stream *stream_find(void *handle)
{
    if (!handle)
        return &default_stream;
    for (struct stream *s = default_stream.next; s; s = s->next)
        if (s == handle)
            return s;
    return NULL;
}

int32_t fake_stream_create(void **stream)
{
    struct stream *s = calloc(1, sizeof *s);
    if (!s)
        return ACL_ERROR_RT_MEMORY_ALLOCATION;
    fake_lock();
    s->context = fake_context();
    s->last = &s->first;
    s->next = default_stream.next;
    default_stream.next = s;
    fake_live_add("streams", 1);
    fake_unlock();
    *stream = s;
    return 0;
}

static void drop_first(struct stream *s)
{
    struct item *i = s->first;
    s->first = i->next;
    if (!s->first)
        s->last = &s->first;
    fake_executor_free(i->executor);
    free(i);
}

int32_t fake_stream_destroy(void *stream)
{
    int32_t code = ACL_ERROR_RT_PARAM_INVALID;
    fake_lock();
    for (struct stream **at = &default_stream.next; *at; at = &(*at)->next)
        if (*at == stream) {
            struct stream *s = *at;
            *at = s->next;
            while (s->first)
                drop_first(s);
            free(s);
            fake_live_add("streams", -1);
            code = 0;
            break;
        }
    fake_unlock();
    return code;
}

/* Every operand's memory, or what is wrong with it. */
static int32_t operands_resolve(struct aclOpExecutor *e)
{
    for (int i = 0; i < e->count; i++) {
        struct operand *o = &e->operand[i];
        uint64_t address, bytes;
        if (!o->tensor.rank)
            continue;
        fake_tensor_span(&o->tensor, &address, &bytes);
        o->host = fake_resolve(address, bytes);
        if (!o->host && bytes) {
            fake_violation("%s: operand %d lies in memory that is not allocated", e->name, i);
            return ACL_ERROR_RT_AICORE_EXCEPTION;
        }
    }
    return 0;
}

static int32_t item_compute(const struct item *i)
{
    struct aclOpExecutor *e = i->executor;
    int32_t code = operands_resolve(e);
    char *workspace = e->workspace ? fake_resolve(i->workspace, e->workspace) : NULL;
    if (e->workspace && !workspace) {
        fake_violation("%s: the workspace was freed before the work was done", e->name);
        code = ACL_ERROR_RT_AICORE_EXCEPTION;
    }
    if (code)
        return code;
    if (workspace)
        memset(workspace, 0xff, e->workspace); /* it is the operator's, whatever was there */
    return e->compute(e);
}

int32_t fake_stream_synchronize(void *stream)
{
    fake_lock();
    struct stream *s = stream_find(stream);
    int32_t code = s ? 0 : fake_error(ACL_ERROR_RT_PARAM_INVALID, "EE1001: no such stream");
    while (s && s->first) {
        int32_t failed = item_compute(s->first);
        if (!s->failed)
            s->failed = failed;
        drop_first(s);
    }
    if (s && s->failed) {
        code = fake_error(s->failed, "EZ9999: the AI core stopped");
        s->failed = 0;
    }
    fake_unlock();
    return code;
}

int32_t fake_stream_push(void *stream, struct aclOpExecutor *executor, uint64_t workspace)
{
    int32_t code = 0;
    struct item *item = calloc(1, sizeof *item);
    if (!item)
        return ACL_ERROR_RT_MEMORY_ALLOCATION;
    *item = (struct item){NULL, executor, workspace};
    fake_lock();
    struct stream *s = stream_find(stream);
    if (!s)
        code = fake_error(ACL_ERROR_RT_PARAM_INVALID, "EE1001: no such stream");
    else if (s->context && s->context != fake_context())
        code = fake_error(STREAM_NOT_IN_CONTEXT, "EE1001: the stream is another context's");
    if (code) {
        free(item);
    } else {
        *s->last = item;
        s->last = &item->next;
    }
    fake_unlock();
    return code;
}

static int overlaps(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
    return a < b + b_bytes && b < a + a_bytes;
}

int fake_is_pending(uint64_t address, uint64_t bytes, int only_written)
{
    for (struct stream *s = streams; s; s = s->next)
        for (struct item *item = s->first; item; item = item->next) {
            struct aclOpExecutor *e = item->executor;
            if (e->workspace && overlaps(address, bytes, item->workspace, e->workspace))
                return 1;
            for (int i = 0; i < e->count; i++) {
                uint64_t at, span;
                if (!e->operand[i].tensor.rank || (only_written && !e->operand[i].written))
                    continue;
                fake_tensor_span(&e->operand[i].tensor, &at, &span);
                if (overlaps(address, bytes, at, span))
                    return 1;
            }
        }
    return 0;
}
