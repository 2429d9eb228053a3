/* layer_bind.c: layers and calls that break the contract must be refused, with a text. */
#include "layer_session.h"

#include <string.h>

static const attn_ext unknown = {NULL, "example.unknown/1", sizeof unknown, ATTN_EXT_REQUIRED};

/* -- layers
 * -------------------------------------------------------------------------------------------- */

static void expect_refusal(const struct check *k, struct session *s, const attn_param *strange,
                           const char *what, struct result *r)
{
    attn_param params[3];
    uint32_t n = s->c.n_params;
    memcpy(params, s->c.params, sizeof s->c.params);
    if (strange)
        params[n++] = *strange;
    attn_work work = fake_bind_work(&s->fake, &s->err);
    attn_binding *binding = NULL;
    s->text[0] = 0;
    attn_status status =
        k->processor->bind(s->processor, &s->c.layer, params, n, &work, &binding, &s->err);
    if (status == ATTN_OK) {
        finding(r, "bind takes %s", what);
        k->processor->unbind(binding);
    } else if (!s->text[0]) {
        finding(r, "bind refuses %s without a text", what);
    }
}

/* A layer of a host of later days, whose structs have grown, is bound as before. */
static void expect_later(const struct check *k, struct session *s, struct result *r)
{
    static const attn_ext optional = {NULL, "example.unknown/1", sizeof optional, 0};
    attn_work work = fake_bind_work(&s->fake, &s->err);
    attn_binding *binding = NULL;
    if (!s->binding)
        return;
    s->c.layer.size += 64;
    s->c.layer.ext = &optional;
    attn_status status = k->processor->bind(s->processor, &s->c.layer, s->c.params, s->c.n_params,
                                            &work, &binding, &s->err);
    if (status == ATTN_OK)
        k->processor->unbind(binding);
    else
        finding(r, "bind refuses a layer of a larger size with an extension that is not required");
}

/* The first layer that the processor binds: what is then wrong with it is the fault's alone. */
static attn_status bindable(const struct check *k, struct session *s, struct result *r)
{
    attn_status status = ATTN_UNSUPPORTED;
    for (int64_t i = 0; i < 50 && status != ATTN_OK && r->verdict != VERDICT_SKIP; i++) {
        if (i)
            session_close(k, s);
        status = session_open(k, s, i, r);
    }
    if (status == ATTN_OK)
        return status;
    session_close(k, s);
    if (processor_open(k, s, r) != ATTN_OK || layer_case_open(&s->c, s->form, k->options->seed, 0))
        return ATTN_UNSUPPORTED;
    return ATTN_OK;
}

void layer_bind_strict(const struct check *k, struct result *r)
{
    struct session s;
    attn_param strange = {"no_such_parameter", ATTN_PARAM_INT, 0, 1, 0, NULL, NULL};
    if (bindable(k, &s, r) != ATTN_OK) {
        session_close(k, &s);
        return;
    }
    r->taken = 1;
    attn_layer right = s.c.layer;
    expect_refusal(k, &s, &strange, "a parameter 'no_such_parameter'", r);
    s.c.layer.to_q.weight.shape[1] += 8;
    expect_refusal(k, &s, NULL, "to_q.weight with 8 columns more", r);
    s.c.layer = right;
    s.c.layer.to_out.weight.shape[1] += 8;
    expect_refusal(k, &s, NULL, "to_out.0.weight with 8 columns more", r);
    s.c.layer = right;
    s.c.layer.to_q.weight.rank = 0;
    expect_refusal(k, &s, NULL, "a layer without to_q", r);
    s.c.layer = right;
    s.c.layer.to_v.weight.rank = s.c.layer.to_k.weight.rank = 0;
    s.c.layer.add_v.weight.rank = s.c.layer.add_k.weight.rank = 0;
    expect_refusal(k, &s, NULL, "a layer without projections of keys and values", r);
    s.c.layer = right;
    s.c.layer.heads = 0;
    expect_refusal(k, &s, NULL, "no heads", r);
    s.c.layer = right;
    s.c.layer.size = 64;
    expect_refusal(k, &s, NULL, "a layer of size 64", r);
    s.c.layer = right;
    s.c.layer.flags |= 1u << 30;
    expect_refusal(k, &s, NULL, "a layer with an unknown flag", r);
    s.c.layer = right;
    s.c.layer.ext = &unknown;
    expect_refusal(k, &s, NULL, "a layer with a required extension that nobody knows", r);
    s.c.layer = right;
    expect_later(k, &s, r);
    session_close(k, &s);

    attn_processor *p = NULL;
    attn_device device = {ATTN_DEVICE_CPU, 0, "cpu"};
    const attn_host bare = {sizeof bare, 1, NULL, NULL, NULL, NULL};
    attn_status status = k->processor->create(&bare, &device, NULL, 0, &p, NULL);
    if (status == ATTN_OK && (k->processor->head.flags & ATTN_HEAD_NEEDS_COMPUTE))
        finding(r, "create works without attn.compute/1, which its head says it needs");
    if (status == ATTN_OK)
        k->processor->destroy(p);
    k->processor->destroy(NULL);
    k->processor->release(NULL);
}

/* -- calls
 * --------------------------------------------------------------------------------------------- */

/* Each breaks a right call in one way; 0 where this call has not what it would break. */
static int small_size(attn_layer_call *c)
{
    c->size = 64;
    return 1;
}
static int flag(attn_layer_call *c)
{
    c->flags |= 1u << 30;
    return 1;
}
static int extension(attn_layer_call *c)
{
    c->ext = &unknown;
    return 1;
}
static int hidden_rank(attn_layer_call *c)
{
    c->hidden.rank = 2;
    return 1;
}
static int hidden_channels(attn_layer_call *c)
{
    c->hidden.shape[c->hidden.rank == 4 ? 1 : 2] += 8;
    return 1;
}
static int integers(attn_layer_call *c)
{
    c->hidden.code = c->out.code = ATTN_CODE_INT;
    return 1;
}
static int out_rank(attn_layer_call *c)
{
    c->out.rank = 2;
    return 1;
}
static int out_tokens(attn_layer_call *c)
{
    c->out.shape[c->out.rank == 4 ? 3 : 1] += 1;
    return 1;
}
static int out_batch(attn_layer_call *c)
{
    c->out.shape[0] += 1;
    return 1;
}
static int encoder_rank(attn_layer_call *c)
{
    c->encoder.rank = 2;
    return c->encoder.shape[0] > 0;
}
static int encoder_batch(attn_layer_call *c)
{
    c->encoder.shape[0] += 1;
    return c->encoder.rank != 0;
}
static int encoder_channels(attn_layer_call *c)
{
    c->encoder.shape[2] += 8;
    return c->encoder.rank != 0;
}
static int bias_keys(attn_layer_call *c)
{
    c->bias.shape[3] += 1;
    return c->bias.rank != 0;
}
static int mask_floats(attn_layer_call *c)
{
    c->mask.code = ATTN_CODE_FLOAT;
    c->mask.bits = 32;
    return c->mask.rank != 0;
}
static int lse_rank(attn_layer_call *c)
{
    c->lse.rank = 2;
    return c->lse.shape[0] > 0;
}
static int mass_keys(attn_layer_call *c)
{
    c->key_mass.shape[1] += 1;
    return c->key_mass.rank != 0;
}

static const struct {
    const char *what;
    int (*apply)(attn_layer_call *c);
} breaks[] = {
    {"a call of size 64", small_size}, /* in which there is no place for a text to be named */
    {"an unknown flag", flag},
    {"a required extension that nobody knows", extension},
    {"hidden states of rank 2", hidden_rank},
    {"hidden states with 8 channels more", hidden_channels},
    {"integers", integers},
    {"out of rank 2", out_rank},
    {"out with a token more", out_tokens},
    {"out of another batch", out_batch},
    {"encoder states of rank 2", encoder_rank},
    {"encoder states of another batch", encoder_batch},
    {"encoder states with 8 channels more", encoder_channels},
    {"a bias with a key more", bias_keys},
    {"a float mask", mask_floats},
    {"lse of rank 2", lse_rank},
    {"key_mass with a key more", mass_keys},
};

/* prepare on the session's layer and this call; the plan is released. */
static attn_status plan_once(const struct check *k, struct session *s, attn_layer_call *call,
                             struct fake_run *run)
{
    memset(run, 0, sizeof *run);
    attn_status status = fake_prepare(run, &s->fake, k->processor, s->binding, call);
    fake_release(run);
    return status;
}

/* On the first of the cases that is taken whole and has what is to be broken. */
static void refuse_one(const struct check *k, int64_t index, struct result *r)
{
    enum { TRIES = 80 };
    int done = 0;
    for (int64_t i = 0; i < TRIES && !done && r->verdict != VERDICT_SKIP; i++) {
        struct session s;
        struct fake_run run;
        struct result unseen = {0};
        if (session_open(k, &s, i, &unseen) == ATTN_OK) {
            attn_layer_call call = s.c.call;
            if (breaks[index].apply(&call) && plan_once(k, &s, &s.c.call, &run) == ATTN_OK) {
                done = 1;
                r->taken++;
                begin_case(r, index, breaks[index].what);
                attn_status status = plan_once(k, &s, &call, &run);
                if (status == ATTN_OK)
                    finding(r, "prepare takes %s", breaks[index].what);
                else if (!run.text[0] && breaks[index].apply != small_size)
                    finding(r, "prepare refuses %s without a text", breaks[index].what);
            }
        }
        session_close(k, &s);
    }
}

/* A call of a larger size, with an extension that is not required, is taken as before. */
static void take_later(const struct check *k, struct result *r)
{
    enum { TRIES = 80 };
    static const attn_ext optional = {NULL, "example.unknown/1", sizeof optional, 0};
    int done = 0;
    for (int64_t i = 0; i < TRIES && !done && r->verdict != VERDICT_SKIP; i++) {
        struct session s;
        struct fake_run run;
        struct result unseen = {0};
        if (session_open(k, &s, i, &unseen) == ATTN_OK &&
            plan_once(k, &s, &s.c.call, &run) == ATTN_OK) {
            done = 1;
            s.c.call.size += 64;
            s.c.call.ext = &optional;
            if (plan_once(k, &s, &s.c.call, &run) != ATTN_OK)
                finding(r, "prepare refuses a call of a larger size with an extension that is not "
                           "required");
        }
        session_close(k, &s);
    }
}

void layer_refusals(const struct check *k, struct result *r)
{
    const int64_t n = sizeof breaks / sizeof *breaks, only = k->options->case_index;
    for (int64_t i = 0; i < n; i++)
        if (only < 0 || only == i)
            refuse_one(k, i, r);
    r->current = -1;
    if (only < 0)
        take_later(k, r);
}
