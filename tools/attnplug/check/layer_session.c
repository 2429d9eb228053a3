#include "layer_session.h"

#include "reference.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const double bound = 1e-5;

static enum layer_form form_of(const struct check *k);

attn_status processor_open(const struct check *k, struct session *s, struct result *r)
{
    attn_device device = {ATTN_DEVICE_CPU, 0, "cpu"};
    memset(s, 0, sizeof *s);
    s->form = form_of(k);
    fake_init(&s->fake);
    s->err = (attn_error){sizeof s->err, sizeof s->text, s->text, 0};
    attn_status status =
        k->processor->create(&s->fake.host, &device, NULL, 0, &s->processor, &s->err);
    if (status == ATTN_UNSUPPORTED) {
        r->verdict = VERDICT_SKIP;
        (void)snprintf(r->message, sizeof r->message, "create: %s", s->text);
    } else if (status != ATTN_OK || !s->processor) {
        finding(r, "create: %s: %s", attn_status_name(status), s->text);
        status = ATTN_INTERNAL;
    }
    return status;
}

void session_close(const struct check *k, struct session *s)
{
    if (s->binding)
        k->processor->unbind(s->binding);
    if (s->processor)
        k->processor->destroy(s->processor);
    layer_case_close(&s->c);
}

attn_status session_open(const struct check *k, struct session *s, int64_t index, struct result *r)
{
    attn_status status = processor_open(k, s, r);
    if (status != ATTN_OK)
        return status;
    if (layer_case_open(&s->c, s->form, k->options->seed, (uint64_t)index)) {
        finding(r, "no memory for the case");
        return ATTN_NOMEM;
    }
    begin_case(r, index, s->c.text);
    attn_work work = fake_bind_work(&s->fake, &s->err);
    s->text[0] = 0;
    status = k->processor->bind(s->processor, &s->c.layer, s->c.params, s->c.n_params, &work,
                                &s->binding, &s->err);
    if (status == ATTN_OK && !s->binding)
        finding(r, "bind: ATTN_OK without a binding");
    if (status != ATTN_OK && !s->text[0])
        finding(r, "bind: %s without a text", attn_status_name(status));
    if (status != ATTN_OK)
        s->binding = NULL;
    return status;
}

attn_status session_run(const struct check *k, struct session *s, struct fake_run *run,
                        struct result *r)
{
    memset(run, 0, sizeof *run);
    attn_status status = fake_prepare(run, &s->fake, k->processor, s->binding, &s->c.call);
    if (status == ATTN_UNSUPPORTED || status == ATTN_INVALID) {
        if (!run->text[0])
            finding(r, "prepare: %s without a text", attn_status_name(status));
        return ATTN_UNSUPPORTED;
    }
    if (status != ATTN_OK) {
        finding(r, "prepare: %s: %s", attn_status_name(status), run->text);
        return status;
    }
    char over[64];
    layer_case_poison(&s->c);
    status = fake_execute(run, &s->c.call);
    if (status != ATTN_OK)
        finding(r, "run: %s: %s", attn_status_name(status), run->text);
    if (layer_case_overrun(&s->c, over, sizeof over))
        finding(r, "run wrote %s", over);
    return status;
}

/* The first form of which the processor takes a layer; plain where it takes none.  One process runs
 * one test: looked for once. */
static enum layer_form form_of(const struct check *k)
{
    enum { TRIES = 40 };
    static int form = -1;
    if (form >= 0)
        return (enum layer_form)form;
    for (form = 0; form < FORM_COUNT; form++)
        for (int64_t i = 0; i < TRIES; i++) {
            struct session s;
            struct fake_run run;
            struct result unseen = {0};
            int taken = session_open(k, &s, i, &unseen) == ATTN_OK;
            if (taken) {
                memset(&run, 0, sizeof run);
                taken = fake_prepare(&run, &s.fake, k->processor, s.binding, &s.c.call) == ATTN_OK;
                if (taken)
                    fake_release(&run);
            }
            session_close(k, &s);
            if (taken)
                return (enum layer_form)form;
        }
    form = FORM_PLAIN;
    return FORM_PLAIN;
}

static double share_of(const attn_tensor *t, const double *want, double floor)
{
    const struct distance d = distance_of(t, want, floor);
    return d.misplaced ? INFINITY : d.relative / bound;
}

double distance_share(const struct layer_case *c)
{
    const attn_tensor out = layer_tokens(&c->call.out);
    double worst = share_of(&out, c->want, 0);
    if (c->call.lse.rank)
        worst = fmax(worst, share_of(&c->call.lse, c->want_lse, 1));
    if (c->call.key_mass.rank)
        worst = fmax(worst, share_of(&c->call.key_mass, c->want_mass, 0));
    if (c->call.probs.rank)
        worst = fmax(worst, share_of(&c->call.probs, c->want_probs, 0));
    return worst;
}
