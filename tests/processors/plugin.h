/* plugin.h: a processor's .so by itself, over the fake compute. */
#ifndef PROCESSOR_PLUGIN_H
#define PROCESSOR_PLUGIN_H

#include "fake_compute.h"
#include "stored_layer.h"

struct plugin {
    const attn_processor_api *api;
    struct fake_compute fake;
    attn_processor *processor;
    char text[FAKE_TEXT]; /* of the last failure */
    attn_error err;
};

/* From the folder $ATTNPLUG_TEST_PLUGINS; fails the test where it cannot. */
void plugin_open(struct plugin *p, const char *name);
/* Fails the test where memory of compute's was not given back. */
void plugin_close(struct plugin *p);

attn_status plugin_bind(struct plugin *p, const attn_layer *layer, const attn_param *params,
                        uint32_t n_params, attn_binding **binding);
/* Bind has to fail with that status and a text that holds `words`. */
void plugin_refuses(struct plugin *p, const attn_layer *layer, const attn_param *params,
                    uint32_t n_params, attn_status status, const char *words);
/* The same of prepare, for the call. */
void plugin_prepare_refuses(struct plugin *p, attn_binding *b, attn_layer_call *call,
                            attn_status status, const char *words);

/* tests/golden/processors/<name>.safetensors, as its name's processor would get it (torch's scale);
 * params without those of the op. */
void stored_get(struct stored_layer *s, const char *name);
/* Of the stored words: those that a processor itself takes. */
uint32_t stored_params(const struct stored_layer *s, attn_param *params, uint32_t capacity);

/* Bind, prepare, run and release: out of the call. */
void plugin_run(struct plugin *p, attn_binding *b, attn_layer_call *call);

attn_param param_int(const char *name, int64_t value);
attn_param param_float(const char *name, double value);
attn_param param_tensor(const char *name, const attn_tensor *value);

#endif
