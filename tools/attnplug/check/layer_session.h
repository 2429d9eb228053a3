/* layer_session.h: steps that the tests of processors share. */
#ifndef ATTNPLUG_CHECK_LAYER_SESSION_H
#define ATTNPLUG_CHECK_LAYER_SESSION_H

#include "check.h"
#include "fake_compute.h"
#include "layer_case.h"

/* A processor, a binding and a case, open together. */
struct session {
    struct fake_compute fake;
    attn_processor *processor;
    attn_binding *binding;
    struct layer_case c;
    enum layer_form form;
    char text[256];
    attn_error err;
};

/* The processor alone. */
attn_status processor_open(const struct check *k, struct session *s, struct result *r);
/* Opens case `index`, bound.  ATTN_UNSUPPORTED where the processor says that the layer is not for
 * it. */
attn_status session_open(const struct check *k, struct session *s, int64_t index, struct result *r);
/* prepare and run once; the plan stays in *run.  ATTN_UNSUPPORTED where prepare refuses. */
attn_status session_run(const struct check *k, struct session *s, struct fake_run *run,
                        struct result *r);
void session_close(const struct check *k, struct session *s);
/* The largest distance of what was asked for from diffusers' layer, as a share of the bound. */
double distance_share(const struct layer_case *c);

/* The tests of a processor, one function each; layer_tests.c has their names. */
void layer_bind_strict(const struct check *k, struct result *r);
void layer_refusals(const struct check *k, struct result *r);
void layer_threads(const struct check *k, struct result *r);
void layer_leaks(const struct check *k, struct result *r);
void layer_allocation(const struct check *k, struct result *r);

#endif
