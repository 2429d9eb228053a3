/* attend.c: one attention inside a pass, by the op that the layer or the model chose. */
#include "pass.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

struct attend_plan {
    attn_plan *plan;
    uint64_t scratch;
};

static void attend_release(struct compute *c, void *plan)
{
    struct attend_plan *p = plan;
    (void)c;
    attn_plan_release(p->plan);
    free(p);
}

/* All of a call that may not change between prepare and run.  Extensions by their content. */
static void key_call(struct plan_key *key, const struct op_choice *choice, const attn_op_call *call)
{
    const attn_tensor *tensors[] = {&call->q,   &call->k,        &call->v,
                                    &call->out, &call->bias,     &call->mask,
                                    &call->lse, &call->key_mass, &call->probs};
    key_begin(key, "attend");
    key_number(key, (int64_t)(uintptr_t)choice->params);
    key_number(key, choice->n_params);
    key_number(key, choice->flags);
    key_text(key, choice->op);
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; ++i)
        key_tensor(key, tensors[i]);
    key_number(key, call->flags);
    if (call->flags & ATTN_CALL_BAND) {
        key_number(key, call->band_lo);
        key_number(key, call->band_hi);
    }
    key_bytes(key, &call->scale, sizeof call->scale);
    key_extensions(key, call->ext);
}

/* Whether a shape with its op is new to the log; two threads may both be told so. */
static bool is_news(struct compute *c, const char *line)
{
    enum { MOST = sizeof c->told / sizeof *c->told };
    uint64_t hash = 1469598103934665603u; /* FNV-1a */
    for (const char *at = line; *at; ++at)
        hash = (hash ^ (unsigned char)*at) * 1099511628211u;
    for (size_t i = 0; i < MOST; ++i)
        if (__atomic_load_n(&c->told[i], __ATOMIC_RELAXED) == hash)
            return false;
    const uint32_t place = __atomic_fetch_add(&c->n_told, 1, __ATOMIC_RELAXED) % MOST;
    __atomic_store_n(&c->told[place], hash, __ATOMIC_RELAXED);
    return true;
}

/* One line for each distinct shape with the op and the processor that it got, and the first layer
 * that has it. */
static void tell_op(attn_work *w, const attn_op_call *call, const char *op)
{
    struct compute *c = work_compute(w);
    const int64_t *q = call->q.shape;
    const struct layer *layer = pass_layer(work_pass(w));
    char line[288];
    char whole[448];
    if (!c->log)
        return;
    (void)snprintf(line, sizeof line, "attention %lld,%lld,%lld,%lld,%lld%s: %s%s%s",
                   (long long)q[0], (long long)q[1], (long long)q[2], (long long)call->k.shape[2],
                   (long long)q[3], tensor_here(&call->key_mass) ? " with key_mass" : "", op,
                   layer ? " under " : "", layer ? layer_processor(layer) : "");
    if (!is_news(c, line))
        return;
    const bool named = w->name && *w->name;
    (void)snprintf(whole, sizeof whole, "%s%s%s%s", line, named ? " (first in " : "",
                   named ? w->name : "", named ? ")" : "");
    c->log(c->log_ctx, 2, whole);
}

/* With scratch of its own on top of the arena, given back at once. */
static attn_tensor take_scratch(attn_work *w, uint64_t bytes)
{
    attn_tensor byte = {.code = ATTN_CODE_UINT, .bits = 8};
    const int64_t shape[] = {(int64_t)bytes};
    return work_take(w, &byte, 1, shape);
}

static attn_status prepare(attn_work *w, const struct op_choice *choice, const attn_op_call *call,
                           const struct plan_key *key)
{
    struct compute *c = work_compute(w);
    if (!c->router)
        return work_fail(w, ATTN_UNSUPPORTED, "attend: this compute was opened without plugins");
    struct attend_plan *p = calloc(1, sizeof *p);
    if (!p)
        return work_fail(w, ATTN_NOMEM, "attend: no memory for a plan");
    ATTN_ERROR_ON(why, 1024);
    uint32_t flags = choice->flags | c->route;
    if (tensor_here(&call->key_mass))
        flags |= ATTN_ROUTE_FALL_BACK;
    attn_status status =
        attn_router_prepare(c->router, choice->op, choice->params, choice->n_params, flags, call,
                            &p->plan, &p->scratch, &why);
    if (status != ATTN_OK) {
        free(p);
        return work_fail(w, status, "%s", why.text);
    }
    if (plan_keep(w, key, p, attend_release) != ATTN_OK)
        return w->status;
    tell_op(w, call, attn_plan_op(p->plan));
    (void)take_scratch(w, p->scratch);
    return w->status;
}

static attn_status run(attn_work *w, const attn_op_call *call, const struct attend_plan *p)
{
    attn_op_call real = *call;
    real.stream = w->stream;
    real.scratch = take_scratch(w, p->scratch).data;
    real.scratch_bytes = p->scratch;
    if (w->status != ATTN_OK)
        return w->status;
    ATTN_ERROR_ON(why, 512);
    attn_status status = attn_plan_run(p->plan, &real, &why);
    return status == ATTN_OK ? ATTN_OK : work_fail(w, status, "%s", why.text);
}

attn_status work_attend_by(attn_work *w, const struct op_choice *choice, const attn_op_call *call,
                           const char **taken)
{
    if (w->status != ATTN_OK)
        return w->status;
    struct plan_key key;
    key_call(&key, choice, call);
    const struct attend_plan *p = plan_find(work_pass(w), &key);
    uint64_t mark = work_mark(w);
    if (!work_dry(w) && !p)
        work_fail(w, ATTN_INTERNAL, "attend: q %s was not planned", tensor_describe(&call->q).text);
    else if (!work_dry(w))
        run(w, call, p);
    else if (p)
        (void)take_scratch(w, p->scratch);
    else
        prepare(w, choice, call, &key);
    work_reset(w, mark);
    if (w->status == ATTN_OK && taken) {
        p = p ? p : plan_find(work_pass(w), &key);
        *taken = attn_plan_op(p->plan);
    }
    return w->status;
}

attn_status work_attend(attn_work *w, const attn_op_call *call)
{
    static const struct op_choice any = {0};
    struct layer *layer = pass_layer(work_pass(w));
    const char *taken = NULL;
    attn_status status = work_attend_by(w, layer ? layer_choice(layer) : &any, call, &taken);
    if (layer && taken)
        layer_took(layer, taken);
    /* A processor asks: what it gets, and will return, are the contract's codes alone. */
    if (status > ATTN_INTERNAL)
        w->status = ATTN_UNSUPPORTED;
    return w->status;
}
