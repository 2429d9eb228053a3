#include "plugin.h"

#include <dlfcn.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

void plugin_open(struct plugin *p, const char *name)
{
    char path[1024];
    const attn_device cpu = {.type = ATTN_DEVICE_CPU, .runtime = "cpu"};
    memset(p, 0, sizeof *p);
    p->err = (attn_error){sizeof p->err, sizeof p->text, p->text, 0};
    (void)snprintf(path, sizeof path, "%s/%s.so", getenv("ATTNPLUG_TEST_PLUGINS"), name);
    void *handle = dlopen(path, RTLD_NOW); /* stays: plugins are never unloaded */
    if (!handle)
        fail_msg("%s", dlerror());
    p->api = dlsym(handle, "attn_processor_v1");
    assert_non_null(p->api);
    fake_init(&p->fake);
    if (p->api->create(&p->fake.host, &cpu, NULL, 0, &p->processor, &p->err) != ATTN_OK)
        fail_msg("%s: %s", name, p->text);
}

void plugin_close(struct plugin *p)
{
    p->api->destroy(p->processor);
    assert_int_equal(p->fake.live, 0);
}

attn_status plugin_bind(struct plugin *p, const attn_layer *layer, const attn_param *params,
                        uint32_t n_params, attn_binding **binding)
{
    attn_work work = fake_bind_work(&p->fake, &p->err);
    *p->text = '\0';
    return p->api->bind(p->processor, layer, params, n_params, &work, binding, &p->err);
}

static void expect(attn_status got, attn_status status, const char *text, const char *words)
{
    if (got != status || !strstr(text, words))
        fail_msg("got status %d, \"%s\"; expected %d and \"%s\"", got, text, status, words);
}

void plugin_refuses(struct plugin *p, const attn_layer *layer, const attn_param *params,
                    uint32_t n_params, attn_status status, const char *words)
{
    attn_binding *b = NULL;
    attn_status got = plugin_bind(p, layer, params, n_params, &b);
    if (got == ATTN_OK)
        p->api->unbind(b);
    expect(got, status, p->text, words);
    expect(got, status, p->text, layer->name);
}

void plugin_prepare_refuses(struct plugin *p, attn_binding *b, attn_layer_call *call,
                            attn_status status, const char *words)
{
    struct fake_run run = {0};
    attn_status got = fake_prepare(&run, &p->fake, p->api, b, call);
    char text[FAKE_TEXT];
    memcpy(text, run.text, sizeof text);
    fake_release(&run);
    expect(got, status, text, words);
    expect(got, status, text, "layer attn");
}

void plugin_run(struct plugin *p, attn_binding *b, attn_layer_call *call)
{
    struct fake_run run = {0};
    if (fake_prepare(&run, &p->fake, p->api, b, call) != ATTN_OK)
        fail_msg("prepare: %s", run.text);
    if (fake_execute(&run, call) != ATTN_OK)
        fail_msg("run: %s", run.text);
    fake_release(&run);
}

void stored_get(struct stored_layer *s, const char *name)
{
    char path[1024], text[512] = "";
    attn_error err = {sizeof err, sizeof text, text, 0};
    (void)snprintf(path, sizeof path, "%s/processors/%s.safetensors",
                   getenv("ATTNPLUG_TEST_GOLDEN"), name);
    if (stored_open(path, s, &err) != ATTN_OK)
        fail_msg("%s", text);
    attn_layer *layer = &s->file->layer;
    if (s->name.flags & ATTN_NAME_SDPA) {
        layer->scale = 0;
        layer->flags &= ~(ATTN_LAYER_UPCAST_ATTENTION | ATTN_LAYER_UPCAST_SOFTMAX);
    }
}

uint32_t stored_params(const struct stored_layer *s, attn_param *params, uint32_t capacity)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->words.spec.n_params; i++) {
        const attn_param *p = &s->words.spec.params[i];
        if (strcmp(p->name, "attention_op") == 0 || strcmp(p->name, "slice_size") == 0)
            continue;
        assert_true(n < capacity);
        params[n++] = *p;
    }
    return n;
}

attn_param param_int(const char *name, int64_t value)
{
    return (attn_param){.name = name, .kind = ATTN_PARAM_INT, .i = value};
}

attn_param param_float(const char *name, double value)
{
    return (attn_param){.name = name, .kind = ATTN_PARAM_FLOAT, .f = value};
}

attn_param param_tensor(const char *name, const attn_tensor *value)
{
    return (attn_param){.name = name, .kind = ATTN_PARAM_TENSOR, .tensor = value};
}
