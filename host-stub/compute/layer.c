/* layer.c: attention layers bound to processors, run inside a pass. */
#include "composition.h"
#include "param_names.h"
#include "pass.h"
#include "staged_layer.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

struct layer {
    struct compute *compute;
    attn_layer layer;                /* weights and texts stay the caller's */
    const attn_terms_api *terms;     /* the plugin's that "lora+B" reads terms with; else NULL */
    struct staged_weights *staged;   /* at a device: of what came in host memory */
    struct composition *composition; /* NULL: no LoRA */
    const char *processor_id;
    attn_host_binding *binding;
    attn_param *params; /* the processor's own */
    uint32_t n_params;
    char *op;
    attn_param op_params[2];
    struct op_choice choice;
    _Atomic(const char *)
        taken; /* id of the op of the last plan; passes of several threads set it */
};

struct layer_plan {
    attn_host_layer_plan *plan;
    uint64_t scratch; /* of the whole layer call */
    const char *op;
    float scales[COMPOSITION_SLOTS]; /* of the last run that projected keys */
    uint32_t n_scales;
};

/* -- processors: one instance for each id on a compute ----------------------------------------- */

struct opened {
    attn_host_processor *processor;
    char id[64];
    struct opened *next;
};

struct processors {
    struct opened *first;
};

/* Held for the list alone, never while a plugin runs. */
static pthread_mutex_t processors_lock = PTHREAD_MUTEX_INITIALIZER;

static struct opened *opened_find(struct compute *c, const char *id)
{
    pthread_mutex_lock(&processors_lock);
    struct opened *o = c->processors ? c->processors->first : NULL;
    while (o && strcmp(o->id, id) != 0)
        o = o->next;
    pthread_mutex_unlock(&processors_lock);
    return o;
}

/* Two threads that open the same processor both keep theirs: the second is found no more, and is
 * closed with the rest. */
static attn_status opened_add(struct compute *c, struct opened *o)
{
    pthread_mutex_lock(&processors_lock);
    if (!c->processors)
        c->processors = calloc(1, sizeof *c->processors);
    const bool added = c->processors != NULL;
    if (added) {
        o->next = c->processors->first;
        c->processors->first = o;
    }
    pthread_mutex_unlock(&processors_lock);
    return added ? ATTN_OK : ATTN_NOMEM;
}

static attn_status processor_open(struct compute *c, const char *id, struct opened **out,
                                  attn_error *err)
{
    *out = opened_find(c, id);
    if (*out)
        return ATTN_OK;
    struct opened *o = calloc(1, sizeof *o);
    if (!o)
        return attn_fail(err, ATTN_NOMEM, "no memory for processor %s", id);
    (void)snprintf(o->id, sizeof o->id, "%s", id);
    attn_status status =
        attn_host_processor_open(attn_router_registry(c->router), id, &c->device,
                                 attn_router_host(c->router), NULL, 0, &o->processor, err);
    if (status != ATTN_OK)
        goto fail;
    status = opened_add(c, o);
    if (status != ATTN_OK) {
        (void)attn_fail(err, status, "no memory for processor %s", id);
        goto fail_added;
    }
    *out = o;
    return ATTN_OK;
fail_added:
    (void)attn_host_processor_close(o->processor);
fail:
    free(o);
    return status;
}

void processors_close(struct compute *c)
{
    if (!c->processors)
        return;
    for (struct opened *o = c->processors->first, *next; o; o = next) {
        next = o->next;
        (void)attn_host_processor_close(o->processor);
        free(o);
    }
    free(c->processors);
    c->processors = NULL;
}

/* -- bind -------------------------------------------------------------------------------------- */

/* Parameters of the op are the host's: a processor never sees them. */
static bool is_op_param(const char *name)
{
    return !strcmp(name, "attention_op") || !strcmp(name, "slice_size");
}

/* Computed in fp32, and meant so. */
static bool is_fp32(const struct compute *c)
{
    return c->dtype.bits == 32 && !c->route;
}

/* Which op: the parameter "attention_op", then the spec's, then what the name stands for. */
static attn_status choose_op(struct layer *l, const attn_layer_spec *spec, const attn_name *name,
                             attn_error *err)
{
    /* AttnProcessorNPU's op depends on the element type: the router knows the name. */
    const char *by_name = name->flags & ATTN_NAME_F32_AUTO ? name->name : name->op;
    const char *op = spec->op ? spec->op : by_name;
    for (uint32_t i = 0; i < spec->n_params; ++i) {
        const attn_param *p = &spec->params[i];
        if (!p->name)
            return attn_fail(err, ATTN_INVALID, "%s: a parameter has no name", spec->processor);
        if (l->terms && param_name_known(l->terms->params, p->name))
            continue;
        if (!is_op_param(p->name))
            l->params[l->n_params++] = *p;
        else if (strcmp(p->name, "attention_op") != 0)
            l->op_params[l->choice.n_params++ % 2] = *p;
        else if (p->kind != ATTN_PARAM_TEXT || !p->text)
            return attn_fail(err, ATTN_INVALID, "attention_op: expected the name of an op");
        else
            op = p->text;
    }
    if (l->choice.n_params > 1)
        return attn_fail(err, ATTN_INVALID, "slice_size is given more than once");
    if (l->choice.n_params && (!op || strcmp(op, "auto") == 0))
        return attn_fail(err, ATTN_INVALID,
                         "slice_size is a parameter of the op sliced; this layer's op is auto");
    if (op) {
        l->op = strdup(op);
        if (!l->op)
            return attn_fail(err, ATTN_NOMEM, "no memory for the name of an op");
    }
    l->choice.op = l->op;
    l->choice.params = l->op_params;
    if ((spec->flags | name->flags) & ATTN_NAME_F32_AUTO && is_fp32(l->compute))
        l->choice.flags |= ATTN_ROUTE_FALL_BACK;
    return ATTN_OK;
}

/* Names that end in 2_0 mean torch's SDPA: its scale, no upcasting. */
static void as_sdpa(attn_layer *layer)
{
    layer->scale = 0.0f;
    layer->flags &= ~(ATTN_LAYER_UPCAST_ATTENTION | ATTN_LAYER_UPCAST_SOFTMAX);
}

/* The plugin that reads the terms of "lora+B". */
static attn_status find_terms(struct layer *l, attn_error *err)
{
    struct opened *lora;
    char id[64];
    attn_status status = attn_processor_id("lora", id, err);
    if (status == ATTN_OK)
        status = processor_open(l->compute, id, &lora, err);
    if (status != ATTN_OK)
        return status;
    return composition_api(attn_host_processor_query(lora->processor, ATTN_TERMS_V1), id, &l->terms,
                           err);
}

static attn_status find_processor(struct layer *l, const attn_layer_spec *spec, attn_name *name,
                                  struct opened **opened, attn_error *err)
{
    *name = (attn_name){.size = sizeof *name};
    attn_status status = attn_name_find_in(attn_router_registry(l->compute->router),
                                           spec->processor, ATTN_NAME_PROCESSORS, name, err);
    if (status != ATTN_OK)
        return status;
    if (!name->processor)
        return attn_fail(err, ATTN_INVALID, "%s is an op, not a processor", spec->processor);
    const char *base =
        name->flags & ATTN_NAME_TERMS ? name->processor : composition_base(name->processor);
    char id[64];
    status = attn_processor_id(base ? base : name->processor, id, err);
    if (status == ATTN_OK)
        status = processor_open(l->compute, id, opened, err);
    return status == ATTN_OK && base ? find_terms(l, err) : status;
}

/* Low-rank terms that the layer has by itself reach a processor that hands its linears to compute
 * as they are; from any other they would be lost. */
static attn_status own_terms(const struct layer *l, const attn_head *head, bool *any,
                             attn_error *err)
{
    const attn_layer *a = &l->layer;
    const attn_linear *all[] = {&a->to_q, &a->to_k, &a->to_v, &a->to_out, &a->add_k, &a->add_v};
    *any = false;
    for (size_t i = 0; i < sizeof all / sizeof *all; ++i)
        *any = *any || all[i]->n_terms;
    if (*any && !(head->flags & ATTN_HEAD_TERMS))
        return attn_fail(err, ATTN_UNSUPPORTED,
                         "layer %s has low-rank terms (LoRA), which processor %s does not take",
                         a->name ? a->name : "(unnamed)", head->id);
    return ATTN_OK;
}

static bool has_term_params(const struct layer *l, const attn_layer_spec *spec)
{
    for (uint32_t i = 0; i < spec->n_params; ++i)
        if (param_name_known(l->terms->params, spec->params[i].name))
            return true;
    return false;
}

/* "lora+B": the layer that B is bound to has LoRA's terms. */
static attn_status compose(struct layer *l, const attn_layer_spec *spec, struct opened *opened,
                           attn_work *w, attn_error *err)
{
    attn_status status =
        composition_open(l->compute, l->terms, &l->layer, spec->params, spec->n_params,
                         attn_host_processor_head(opened->processor), w, &l->composition, err);
    if (status == ATTN_OK)
        l->layer = *composition_layer(l->composition);
    return status;
}

/* A processor's bind may copy and pack: it gets a work without scratch. */
static attn_status bind_processor(struct layer *l, const attn_layer_spec *spec,
                                  struct opened *opened, attn_error *err)
{
    struct pass *pass;
    attn_status status = pass_create(l->compute, &pass, err);
    if (status != ATTN_OK)
        return status;
    attn_work *w = pass_real(pass, NULL, err);
    w->name = l->layer.name;
    char who[160];
    (void)snprintf(who, sizeof who, "%s: layer %s", spec->processor,
                   l->layer.name && *l->layer.name ? l->layer.name : "(unnamed)");
    status = composition_check(l->terms ? l->terms->params : NULL,
                               attn_host_processor_query(opened->processor, "attn.params/1"),
                               spec->params, spec->n_params, who, err);
    bool own = false;
    if (status == ATTN_OK)
        status = own_terms(l, attn_host_processor_head(opened->processor), &own, err);
    /* A layer that brings its terms needs none of "lora+B"; given both, composition refuses. */
    if (status == ATTN_OK && l->terms && (!own || has_term_params(l, spec)))
        status = compose(l, spec, opened, w, err);
    if (status == ATTN_OK)
        status = attn_host_processor_bind(opened->processor, &l->layer, l->params, l->n_params, w,
                                          &l->binding, err);
    if (status == ATTN_OK && w->status != ATTN_OK)
        status = w->status;
    pass_destroy(pass);
    return status;
}

attn_status layer_bind(struct compute *c, const attn_layer *layer, const attn_layer_spec *spec,
                       struct layer **out, attn_error *err)
{
    if (!c->router)
        return attn_fail(err, ATTN_UNSUPPORTED, "layers need a compute opened with plugins");
    struct layer *l = calloc(1, sizeof *l);
    if (!l)
        return attn_fail(err, ATTN_NOMEM, "no memory for a layer");
    l->compute = c;
    attn_name name;
    struct opened *opened;
    attn_status status = find_processor(l, spec, &name, &opened, err);
    if (status == ATTN_OK && c->device.type != ATTN_DEVICE_CPU)
        status = staged_weights_open(c, layer, spec, &l->staged, err);
    if (status != ATTN_OK)
        goto fail;
    if (l->staged) {
        layer = staged_layer(l->staged);
        spec = staged_spec(l->staged);
    }
    memcpy(&l->layer, layer, layer->size < sizeof *layer ? layer->size : sizeof *layer);
    l->layer.size = sizeof l->layer;
    l->processor_id = opened->id;
    if ((spec->flags | name.flags) & ATTN_NAME_SDPA)
        as_sdpa(&l->layer);
    l->params = calloc(spec->n_params + 1, sizeof *l->params);
    if (!l->params) {
        status = attn_fail(err, ATTN_NOMEM, "no memory for %u parameters", spec->n_params);
        goto fail;
    }
    status = choose_op(l, spec, &name, err);
    if (status == ATTN_OK)
        status = bind_processor(l, spec, opened, err);
    if (status != ATTN_OK)
        goto fail;
    *out = l;
    return ATTN_OK;
fail:
    layer_unbind(l);
    return status;
}

void layer_unbind(struct layer *l)
{
    if (!l)
        return;
    if (l->binding)
        (void)attn_host_processor_unbind(l->binding);
    composition_close(l->composition);
    staged_weights_close(l->staged);
    free(l->params);
    free(l->op);
    free(l);
}

const char *layer_processor(const struct layer *l)
{
    return l->processor_id;
}

const char *layer_op(const struct layer *l)
{
    const char *taken = atomic_load_explicit(&l->taken, memory_order_relaxed);
    return taken ? taken : "";
}

const struct op_choice *layer_choice(struct layer *l)
{
    return &l->choice;
}

void layer_took(struct layer *l, const char *op)
{
    atomic_store_explicit(&l->taken, op, memory_order_relaxed);
}

/* -- run --------------------------------------------------------------------------------------- */

static void key_layer(struct plan_key *key, const struct layer *l, const attn_layer_call *call)
{
    const attn_tensor *tensors[] = {&call->hidden, &call->encoder,  &call->out,
                                    &call->bias,   &call->mask,     &call->temb,
                                    &call->lse,    &call->key_mass, &call->probs};
    key_begin(key, "layer");
    key_number(key, (int64_t)(uintptr_t)l);
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; ++i)
        key_tensor(key, tensors[i]);
    key_number(key, call->n_images);
    for (uint32_t i = 0; i < call->n_images; ++i)
        key_tensor(key, &call->images[i]);
    key_number(key, call->n_params);
    for (uint32_t i = 0; i < call->n_params; ++i)
        key_text(key, call->params[i].name);
    key_extensions(key, call->ext);
}

static void layer_plan_release(struct compute *c, void *plan)
{
    struct layer_plan *p = plan;
    (void)c;
    attn_host_processor_release(p->plan);
    free(p);
}

/* Terms that no linear saw would be lost without a word. */
static attn_status check_terms(attn_work *w, const struct layer *l)
{
    const attn_layer *a = &l->layer;
    const struct {
        const char *name;
        const attn_linear *linear;
    } all[] = {{"to_q", &a->to_q},     {"to_k", &a->to_k},   {"to_v", &a->to_v},
               {"to_out", &a->to_out}, {"add_k", &a->add_k}, {"add_v", &a->add_v}};
    for (size_t i = 0; i < sizeof all / sizeof *all; ++i) {
        bool unused = (i == 1 || i == 2) && a->flags & ATTN_LAYER_ONLY_CROSS;
        if (all[i].linear->n_terms && !unused && !pass_has_seen(work_pass(w), all[i].linear->terms))
            return work_fail(w, ATTN_UNSUPPORTED,
                             "processor %s does not apply the low-rank terms of %s",
                             l->processor_id, all[i].name);
    }
    return w->status;
}

static attn_status prepare(attn_work *w, struct layer *l, const attn_layer_call *call,
                           const struct plan_key *key)
{
    struct layer_plan *p = calloc(1, sizeof *p);
    if (!p)
        return work_fail(w, ATTN_NOMEM, "no memory for a plan");
    uint64_t peak = w->peak, used = w->used;
    w->peak = used;
    pass_forget_terms(work_pass(w));
    attn_status status = attn_host_processor_prepare(l->binding, call, &p->plan);
    p->scratch = w->peak - used;
    w->used = used;
    w->peak = w->peak > peak ? w->peak : peak;
    if (w->status == ATTN_OK)
        w->status = status; /* the processor wrote the text */
    if (w->status == ATTN_OK)
        check_terms(w, l);
    if (w->status != ATTN_OK) {
        if (status == ATTN_OK)
            attn_host_processor_release(p->plan);
        free(p);
        return w->status;
    }
    p->op = atomic_load_explicit(&l->taken, memory_order_relaxed);
    return plan_keep(w, key, p, layer_plan_release);
}

/* Kept keys are those of the scales that they were made with: after a change they are made anew. */
static bool scales_changed(const attn_work *w, const struct layer_plan *p)
{
    return p->n_scales != w->n_scales || w->n_scales > COMPOSITION_SLOTS ||
           (w->n_scales && memcmp(p->scales, w->scales, w->n_scales * sizeof *p->scales) != 0);
}

static attn_status run(attn_work *w, struct layer_plan *p, attn_layer_call *call)
{
    const uint32_t flags = call->flags;
    uint64_t mark = work_mark(w);
    if (scales_changed(w, p))
        call->flags &= ~ATTN_LAYER_CALL_SAME;
    attn_status status = attn_host_processor_run(p->plan, call);
    work_reset(w, mark);
    if (w->status == ATTN_OK)
        w->status = status;
    if (w->n_scales && w->n_scales <= COMPOSITION_SLOTS)
        memcpy(p->scales, w->scales, w->n_scales * sizeof *p->scales);
    p->n_scales = w->n_scales;
    call->flags = flags;
    return w->status;
}

attn_status layer_run(attn_work *w, struct layer *l, attn_layer_call *call)
{
    if (w->status != ATTN_OK)
        return w->status;
    struct pass *pass = work_pass(w);
    struct plan_key key;
    key_layer(&key, l, call);
    struct layer_plan *p = plan_find(pass, &key);
    const attn_work outer = *w;
    float scales[COMPOSITION_SLOTS];
    w->name = l->layer.name;
    if (l->composition && composition_scales(l->composition, call, scales, w) != ATTN_OK)
        goto done;
    call->work = w;
    pass_set_layer(pass, l);
    if (p)
        layer_took(l, p->op);
    if (work_dry(w) && !p)
        prepare(w, l, call, &key);
    else if (!p)
        work_fail(w, ATTN_INTERNAL, "hidden states %s were not planned",
                  tensor_describe(&call->hidden).text);
    else if (!work_dry(w))
        run(w, p, call);
    else if (w->peak < w->used + p->scratch)
        w->peak = w->used + p->scratch;
    pass_set_layer(pass, NULL);
done:
    w->name = outer.name;
    w->scales = outer.scales;
    w->n_scales = outer.n_scales;
    return w->status;
}

bool layer_planned(struct pass *pass, const struct layer *l, const attn_layer_call *call)
{
    struct plan_key key;
    key_layer(&key, l, call);
    return plan_find(pass, &key) != NULL;
}
