/* attend.c: one call, all in one, with plans and scratch kept for the next of the same shapes. */
#include "device_memory.h"
#include "router.h"

#include <stdlib.h>
#include <string.h>

enum { SLOTS = 64, NAME = 96 };

typedef struct {
    char op[NAME];
    attn_op_call key; /* no pointers but the stream */
    uint64_t generation;
    attn_plan *plan; /* NULL: the slot is free */
    void *scratch;
    uint64_t scratch_bytes;
    device_memory memory; /* of the op, where the router's device is none of the host's */
    bool busy;
    uint64_t used; /* the cache's clock at its last use */
} slot;

struct attend_cache {
    pthread_mutex_t lock; /* slots' places; a busy slot belongs to its caller */
    uint64_t clock;
    slot slots[SLOTS];
};

attn_status attend_cache_create(attn_router *router, attn_error *err)
{
    struct attend_cache *cache = calloc(1, sizeof *cache);
    if (!cache) {
        return attn_fail(err, ATTN_NOMEM, "no memory for a router");
    }
    pthread_mutex_init(&cache->lock, NULL);
    router->cache = cache;
    return ATTN_OK;
}

/* What the slot's calls queued may still be under way: it is waited for. */
static void slot_drop(slot *s)
{
    if (s->memory.table) {
        (void)device_memory_synchronize(&s->memory, s->key.stream, NULL);
        device_memory_free(&s->memory, s->scratch);
    } else {
        free(s->scratch);
    }
    attn_plan_release(s->plan);
    memset(s, 0, sizeof *s);
}

/* Takes out of the cache what no call is using: everything, or what is of older plugins. */
static void drop_idle(struct attend_cache *cache, uint64_t keep_generation)
{
    for (int i = 0; i < SLOTS; i++) {
        slot taken = {0};
        pthread_mutex_lock(&cache->lock);
        slot *s = &cache->slots[i];
        if (s->plan && !s->busy && s->generation != keep_generation) {
            taken = *s;
            memset(s, 0, sizeof *s);
        }
        pthread_mutex_unlock(&cache->lock);
        if (taken.plan) {
            slot_drop(&taken);
        }
    }
}

void attend_cache_trim(attn_router *router)
{
    drop_idle(router->cache, UINT64_MAX);
}

void attend_cache_destroy(attn_router *router)
{
    if (router->cache) {
        pthread_mutex_destroy(&router->cache->lock);
        free(router->cache);
        router->cache = NULL;
    }
}

static void tensor_key(attn_tensor *key, const attn_tensor *t)
{
    if (!t->rank) {
        return;
    }
    key->rank = t->rank;
    key->device_type = t->device_type;
    key->device_id = t->device_id;
    key->code = t->code;
    key->bits = t->bits;
    key->lanes = t->lanes;
    key->align = t->align;
    for (uint32_t i = 0; i < t->rank && i < 4; i++) {
        key->shape[i] = t->shape[i];
        key->stride[i] = t->stride[i];
    }
}

/* What a plan depends on; all else 0, so that keys compare as bytes. */
static void call_key(attn_op_call *key, const attn_op_call *call)
{
    memset(key, 0, sizeof *key);
    key->flags = call->flags;
    tensor_key(&key->q, &call->q);
    tensor_key(&key->k, &call->k);
    tensor_key(&key->v, &call->v);
    tensor_key(&key->out, &call->out);
    tensor_key(&key->bias, &call->bias);
    tensor_key(&key->mask, &call->mask);
    tensor_key(&key->lse, &call->lse);
    tensor_key(&key->key_mass, &call->key_mass);
    tensor_key(&key->probs, &call->probs);
    if (call->flags & ATTN_CALL_BAND) {
        key->band_lo = call->band_lo;
        key->band_hi = call->band_hi;
    }
    key->scale = call->scale;
    key->stream = call->stream;
}

/* An idle slot with that plan, taken; NULL: none. */
static slot *slot_find(struct attend_cache *cache, const char *op, const attn_op_call *key,
                       uint64_t generation)
{
    slot *found = NULL;
    pthread_mutex_lock(&cache->lock);
    for (int i = 0; i < SLOTS && !found; i++) {
        slot *s = &cache->slots[i];
        if (s->plan && !s->busy && s->generation == generation && strcmp(s->op, op) == 0 &&
            memcmp(&s->key, key, sizeof *key) == 0) {
            s->busy = true;
            s->used = ++cache->clock;
            found = s;
        }
    }
    pthread_mutex_unlock(&cache->lock);
    return found;
}

static attn_status take_scratch(slot *s, attn_router *router, attn_error *err)
{
    uint64_t bytes = (s->scratch_bytes + 255) & ~UINT64_C(255);
    const bool at_host = router->device.type == ATTN_DEVICE_CPU;
    if (!at_host) {
        s->memory = device_memory_of(s->plan->entry->op);
    }
    if (!bytes) {
        return ATTN_OK;
    }
    if (at_host) {
        s->scratch = aligned_alloc(256, bytes);
        return s->scratch ? ATTN_OK
                          : attn_fail(err, ATTN_NOMEM, "%s: no memory for %llu bytes of scratch",
                                      attn_plan_op(s->plan), (unsigned long long)bytes);
    }
    if (!s->memory.table) {
        return attn_fail(err, ATTN_UNSUPPORTED,
                         "%s: needs %llu bytes of scratch at the device and gives no attn.memory/1",
                         attn_plan_op(s->plan), (unsigned long long)bytes);
    }
    return device_memory_alloc(&s->memory, bytes, &s->scratch, err);
}

static attn_status slot_fill(slot *s, attn_router *router, const char *op, const attn_op_call *call,
                             attn_error *err)
{
    s->generation = registry_generation(router->registry);
    attn_status status =
        attn_router_prepare(router, op, NULL, 0, 0, call, &s->plan, &s->scratch_bytes, err);
    if (status != ATTN_OK) {
        return status;
    }
    status = take_scratch(s, router, err);
    if (status != ATTN_OK) {
        attn_plan_release(s->plan);
        s->plan = NULL;
    }
    return status;
}

/* Puts a new slot into the cache, in the place of the one that was idle longest; false: all busy.
 */
static bool slot_keep(struct attend_cache *cache, const slot *fresh)
{
    slot old = {0};
    slot *place = NULL;
    pthread_mutex_lock(&cache->lock);
    for (int i = 0; i < SLOTS; i++) {
        slot *s = &cache->slots[i];
        if (!s->busy && (!place || !s->plan || s->used < place->used)) {
            place = s;
            if (!s->plan) {
                break;
            }
        }
    }
    if (place) {
        old = *place;
        *place = *fresh;
        place->used = ++cache->clock;
    }
    pthread_mutex_unlock(&cache->lock);
    if (old.plan) {
        slot_drop(&old);
    }
    return place != NULL;
}

static attn_status slot_run(const slot *s, const attn_op_call *call, attn_error *err)
{
    attn_op_call own = *call;
    own.size = sizeof own;
    own.scratch = s->scratch;
    own.scratch_bytes = s->scratch_bytes;
    return attn_plan_run(s->plan, &own, err);
}

static attn_status run_kept(struct attend_cache *cache, slot *s, const attn_op_call *call,
                            attn_error *err)
{
    attn_status status = slot_run(s, call, err);
    pthread_mutex_lock(&cache->lock);
    s->busy = false;
    pthread_mutex_unlock(&cache->lock);
    return status;
}

attn_status attn_attend_call(attn_router *router, const char *op, const attn_op_call *call,
                             attn_error *err)
{
    struct attend_cache *cache = router->cache;
    attn_op_call key;
    slot fresh = {0};
    if (!call || call->size < sizeof *call) {
        return attn_fail(err, ATTN_INVALID, "attn_op_call: size is %u, expected at least %zu",
                         call ? call->size : 0, sizeof *call);
    }
    uint64_t generation = registry_generation(router->registry);
    bool keeps = !call->ext && strlen(op ? op : "") < NAME; /* extensions are not compared */
    call_key(&key, call);
    slot *kept = keeps ? slot_find(cache, op ? op : "", &key, generation) : NULL;
    if (kept) {
        return run_kept(cache, kept, call, err);
    }
    drop_idle(cache, generation);
    attn_status status = slot_fill(&fresh, router, op, call, err);
    if (status != ATTN_OK) {
        return status;
    }
    (void)snprintf(fresh.op, sizeof fresh.op, "%s", op ? op : "");
    fresh.key = key;
    status = slot_run(&fresh, call, err);
    if (!keeps || status != ATTN_OK || !slot_keep(cache, &fresh)) {
        slot_drop(&fresh);
    }
    return status;
}
