/* pass.c: the plans and the arena of one model's forward passes. */
#include "pass.h"

#include <stdlib.h>

#define ARENA_ALIGN 256u
#define RUNS_UNTOLD 16

struct plan {
    uint64_t hash;
    uint32_t key_bytes;
    uint8_t *key;
    void *value;
    void (*release)(struct compute *c, void *plan);
};

struct pass {
    struct compute *compute;
    attn_work dry, real;
    uint64_t peak;
    void *arena;
    uint64_t capacity;
    struct plan *plans; /* open addressing: `slots` is a power of two, value NULL is free */
    uint32_t n_plans, slots;
    uint32_t runs;
    struct layer *layer;
    const attn_term **seen;
    uint32_t n_seen, seen_capacity;
};

/* -- memory ------------------------------------------------------------------------------------ */

void compute_took(struct compute *c, uint64_t bytes)
{
    uint64_t now = __atomic_add_fetch(&c->bytes, bytes, __ATOMIC_RELAXED);
    uint64_t peak = __atomic_load_n(&c->bytes_peak, __ATOMIC_RELAXED);
    while (peak < now && !__atomic_compare_exchange_n(&c->bytes_peak, &peak, now, 1,
                                                      __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
}

void compute_gave(struct compute *c, uint64_t bytes)
{
    __atomic_sub_fetch(&c->bytes, bytes, __ATOMIC_RELAXED);
}

uint64_t compute_peak(const struct compute *c)
{
    return __atomic_load_n(&c->bytes_peak, __ATOMIC_RELAXED);
}

/* -- texts ------------------------------------------------------------------------------------- */

struct tensor_text tensor_describe(const attn_tensor *t)
{
    struct tensor_text out;
    if (!tensor_here(t)) {
        (void)snprintf(out.text, sizeof out.text, "absent");
        return out;
    }
    int at = snprintf(out.text, sizeof out.text, "[");
    for (uint32_t i = 0; i < t->rank && i < 4; ++i)
        at += snprintf(out.text + at, sizeof out.text - (size_t)at, "%s%lld", i ? ", " : "",
                       (long long)t->shape[i]);
    const char *kind = t->code == ATTN_CODE_FLOAT    ? "f"
                       : t->code == ATTN_CODE_BFLOAT ? "bf"
                       : t->code == ATTN_CODE_INT    ? "i"
                                                     : "u";
    (void)snprintf(out.text + at, sizeof out.text - (size_t)at, "] %s%u", kind, t->bits);
    return out;
}

attn_status work_fail(attn_work *w, attn_status status, const char *format, ...)
{
    if (w->status != ATTN_OK)
        return w->status;
    w->status = status;
    if (w->err && w->err->text && w->err->capacity) {
        int at = 0;
        if (w->name)
            at = snprintf(w->err->text, w->err->capacity, "%s: ", w->name);
        if (at >= 0 && (uint32_t)at < w->err->capacity) {
            va_list args;
            va_start(args, format);
            (void)vsnprintf(w->err->text + at, w->err->capacity - (uint32_t)at, format, args);
            va_end(args);
        }
    }
    return status;
}

/* -- keys -------------------------------------------------------------------------------------- */

void key_bytes(struct plan_key *key, const void *bytes, size_t n)
{
    if (n > sizeof key->bytes - key->used) {
        key->overflow = true;
        return;
    }
    memcpy(key->bytes + key->used, bytes, n);
    key->used += (uint32_t)n;
}

void key_text(struct plan_key *key, const char *text)
{
    key_bytes(key, text ? text : "", text ? strlen(text) + 1 : 1);
}

void key_begin(struct plan_key *key, const char *operation)
{
    key->used = 0;
    key->overflow = false;
    key_text(key, operation);
}

void key_tensor(struct plan_key *key, const attn_tensor *t)
{
    uint32_t rank = t ? t->rank : 0;
    key_bytes(key, &rank, sizeof rank);
    if (!rank)
        return;
    key_bytes(key, t->shape, rank * sizeof t->shape[0]);
    key_bytes(key, t->stride, rank * sizeof t->stride[0]);
    key_bytes(key, &t->code, sizeof t->code);
    key_bytes(key, &t->bits, sizeof t->bits);
    key_bytes(key, &t->align, sizeof t->align);
}

void key_extensions(struct plan_key *key, const attn_ext *ext)
{
    for (; ext; ext = ext->next) {
        key_text(key, ext->id);
        key_number(key, ext->flags);
        key_number(key, ext->size);
        if (ext->size > sizeof *ext)
            key_bytes(key, (const char *)ext + sizeof *ext, ext->size - sizeof *ext);
    }
}

static uint64_t key_hash(const struct plan_key *key)
{
    uint64_t h = UINT64_C(0x9E3779B97F4A7C15);
    uint32_t i = 0;
    for (; i + 8 <= key->used; i += 8) {
        uint64_t word;
        memcpy(&word, key->bytes + i, sizeof word);
        h = (h ^ word) * UINT64_C(0xD6E8FEB86659FD93);
        h ^= h >> 32;
    }
    for (; i < key->used; ++i)
        h = (h ^ key->bytes[i]) * UINT64_C(0xD6E8FEB86659FD93);
    return h ^ (h >> 29);
}

/* The plan of that key, or the free slot for it.  There is always a free slot. */
static struct plan *plans_slot(const struct pass *pass, const struct plan_key *key, uint64_t hash)
{
    for (uint64_t i = hash;; ++i) {
        struct plan *p = &pass->plans[i & (pass->slots - 1)];
        if (!p->value)
            return p;
        if (p->hash == hash && p->key_bytes == key->used && !memcmp(p->key, key->bytes, key->used))
            return p;
    }
}

static bool plans_grow(struct pass *pass)
{
    uint32_t slots = pass->slots ? pass->slots * 2 : 64;
    struct plan *plans = calloc(slots, sizeof *plans);
    if (!plans)
        return false;
    for (uint32_t i = 0; i < pass->slots; ++i) {
        if (!pass->plans[i].value)
            continue;
        uint64_t at = pass->plans[i].hash;
        while (plans[at & (slots - 1)].value)
            ++at;
        plans[at & (slots - 1)] = pass->plans[i];
    }
    free(pass->plans);
    pass->plans = plans;
    pass->slots = slots;
    return true;
}

void *plan_find(struct pass *pass, const struct plan_key *key)
{
    if (!pass->slots || key->overflow)
        return NULL;
    return plans_slot(pass, key, key_hash(key))->value;
}

attn_status plan_keep(attn_work *w, const struct plan_key *key, void *plan,
                      void (*release)(struct compute *c, void *plan))
{
    struct pass *pass = work_pass(w);
    attn_status status = ATTN_NOMEM;
    const char *why = "no memory for a plan";
    if (key->overflow) {
        status = ATTN_INVALID;
        why = "the call has too many parts to be planned";
        goto fail;
    }
    if (2 * (pass->n_plans + 1) > pass->slots && !plans_grow(pass))
        goto fail;
    uint64_t hash = key_hash(key);
    struct plan *p = plans_slot(pass, key, hash);
    if (p->value) {
        p->release(pass->compute, p->value);
    } else {
        p->key = malloc(key->used);
        if (!p->key)
            goto fail;
        memcpy(p->key, key->bytes, key->used);
        p->key_bytes = key->used;
        p->hash = hash;
        ++pass->n_plans;
    }
    p->value = plan;
    p->release = release;
    return ATTN_OK;
fail:
    release(pass->compute, plan);
    return work_fail(w, status, "%s", why);
}

/* -- the pass ---------------------------------------------------------------------------------- */

attn_status pass_create(struct compute *c, struct pass **out, attn_error *err)
{
    struct pass *pass = calloc(1, sizeof *pass);
    if (!pass)
        return attn_fail(err, ATTN_NOMEM, "no memory for a pass (%zu bytes)", sizeof *pass);
    pass->compute = c;
    pass->runs = RUNS_UNTOLD;
    *out = pass;
    return ATTN_OK;
}

void pass_expect(struct pass *pass, uint32_t runs)
{
    pass->runs = runs;
}

uint32_t pass_runs(const struct pass *pass)
{
    return pass->runs;
}

void pass_destroy(struct pass *pass)
{
    if (!pass)
        return;
    for (uint32_t i = 0; i < pass->slots; ++i) {
        struct plan *p = &pass->plans[i];
        if (!p->value)
            continue;
        p->release(pass->compute, p->value);
        free(p->key);
    }
    free(pass->plans);
    free(pass->seen);
    if (pass->arena)
        pass->compute->plugin.free(pass->compute->plugin.ctx, pass->arena);
    free(pass);
}

/* A dry run that failed does not count. */
static void pass_count(struct pass *pass)
{
    if (pass->dry.status == ATTN_OK && pass->dry.peak > pass->peak)
        pass->peak = pass->dry.peak;
}

attn_work *pass_dry(struct pass *pass, attn_error *err)
{
    pass_count(pass);
    pass->dry =
        (attn_work){.size = sizeof(attn_work), .flags = ATTN_WORK_DRY, .host = pass, .err = err};
    pass->layer = NULL;
    return &pass->dry;
}

static attn_status arena_grow(struct pass *pass, attn_error *err)
{
    const attn_compute *memory = &pass->compute->plugin;
    pass_count(pass);
    if (pass->capacity >= pass->peak)
        return ATTN_OK;
    if (pass->arena)
        memory->free(memory->ctx, pass->arena);
    pass->arena = NULL;
    pass->capacity = 0;
    attn_status status = memory->alloc(memory->ctx, pass->peak, &pass->arena, err);
    if (status == ATTN_OK)
        pass->capacity = pass->peak;
    return status;
}

attn_work *pass_real(struct pass *pass, void *stream, attn_error *err)
{
    if (arena_grow(pass, err) != ATTN_OK)
        return NULL;
    pass->real = (attn_work){.size = sizeof(attn_work),
                             .host = pass,
                             .stream = stream ? stream : pass->compute->stream,
                             .base = (uint64_t)(uintptr_t)pass->arena,
                             .capacity = pass->capacity,
                             .err = err};
    pass->layer = NULL;
    return &pass->real;
}

uint64_t pass_peak(const struct pass *pass)
{
    bool dry = pass->dry.status == ATTN_OK && pass->dry.peak > pass->peak;
    return dry ? pass->dry.peak : pass->peak;
}

struct pass *work_pass(const attn_work *w)
{
    return w->host;
}

struct compute *work_compute(const attn_work *w)
{
    return work_pass(w)->compute;
}

struct layer *pass_layer(const struct pass *pass)
{
    return pass->layer;
}

void pass_set_layer(struct pass *pass, struct layer *layer)
{
    pass->layer = layer;
}

/* -- scratch ----------------------------------------------------------------------------------- */

attn_tensor work_take(attn_work *w, const attn_tensor *dtype, uint32_t rank, const int64_t *shape)
{
    const struct compute *c = work_compute(w);
    attn_tensor t = tensor_of(NULL, dtype ? dtype : &c->dtype, rank, shape);
    t.device_type = c->device.type;
    t.device_id = c->device.id;
    t.align = ARENA_ALIGN;
    uint64_t at = (w->used + ARENA_ALIGN - 1) & ~(uint64_t)(ARENA_ALIGN - 1);
    uint64_t end = at + tensor_bytes(&t);
    if (!work_dry(w)) {
        if (end > w->capacity) {
            work_fail(w, ATTN_INTERNAL,
                      "%s of scratch do not fit into the arena that the dry run counted "
                      "(%llu of %llu bytes)",
                      tensor_describe(&t).text, (unsigned long long)end,
                      (unsigned long long)w->capacity);
            return t;
        }
        t.data = (void *)(uintptr_t)(w->base + at);
    }
    w->used = end;
    if (w->peak < w->used)
        w->peak = w->used;
    return t;
}

uint64_t work_mark(const attn_work *w)
{
    return w->used;
}

void work_reset(attn_work *w, uint64_t mark)
{
    w->used = mark;
}

/* -- terms ------------------------------------------------------------------------------------- */

bool pass_has_seen(const struct pass *pass, const attn_term *terms)
{
    for (uint32_t i = 0; i < pass->n_seen; ++i) {
        if (pass->seen[i] == terms)
            return true;
    }
    return false;
}

void pass_saw_terms(attn_work *w, const attn_linear *linear)
{
    struct pass *pass = work_pass(w);
    if (!work_dry(w) || !linear->n_terms || pass_has_seen(pass, linear->terms))
        return;
    if (pass->n_seen == pass->seen_capacity) {
        uint32_t capacity = pass->seen_capacity ? 2 * pass->seen_capacity : 16;
        const attn_term **seen = realloc(pass->seen, capacity * sizeof *seen);
        if (!seen) {
            work_fail(w, ATTN_NOMEM, "no memory for the list of terms");
            return;
        }
        pass->seen = seen;
        pass->seen_capacity = capacity;
    }
    pass->seen[pass->n_seen++] = linear->terms;
}

void pass_forget_terms(struct pass *pass)
{
    pass->n_seen = 0;
}
