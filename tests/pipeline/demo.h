/* demo.h: the built-in model through real plugins, for tests of requests. */
#ifndef ATTNPLUG_TESTS_PIPELINE_DEMO_H
#define ATTNPLUG_TESTS_PIPELINE_DEMO_H

#include "golden.h"

#include "attn_sag.h"

static const char *demo_folder;
static const char *plugin_folder;
static attn_registry *registry;
static attn_sag *demo;        /* open while the tests run */
static uint32_t demo_threads; /* 0: one per core */

static inline int demo_setup(void **state)
{
    ATTN_ERROR_ON(err, 1024);
    attn_sag_open_options model = {
        .size = sizeof model, .model = demo_folder, .n_threads = demo_threads};
    (void)state;
    registry = plugins_open(plugin_folder);
    if (!registry || attn_sag_open(registry, &model, &demo, &err)) {
        print_error("%s\n", err.text);
        return -1;
    }
    return 0;
}

static inline int demo_teardown(void **state)
{
    (void)state;
    attn_sag_close(demo);
    attn_registry_close(registry);
    return 0;
}

/* Two steps of a small picture of "red heart". */
static inline attn_sag_run_options demo_request(void)
{
    static const char *const prompts[] = {"red heart", "rocket"};
    return (attn_sag_run_options){.size = sizeof(attn_sag_run_options),
                                  .prompts = prompts,
                                  .n_prompts = 1,
                                  .height = 32,
                                  .width = 48,
                                  .num_inference_steps = 2};
}

static inline attn_sag_result demo_run(attn_sag *sag, const attn_sag_run_options *o)
{
    ATTN_ERROR_ON(err, 1024);
    attn_sag_result result = {.size = sizeof result};
    if (attn_sag_run(sag, o, &result, &err)) {
        fail_msg("%s", err.text);
    }
    return result;
}

static inline void demo_refused(attn_sag *sag, const attn_sag_run_options *o, attn_status status,
                                const char *first, const char *second)
{
    ATTN_ERROR_ON(err, 1024);
    attn_sag_result result = {.size = sizeof result};
    attn_status got = attn_sag_run(sag, o, &result, &err);
    if (got != status || !strstr(err.text, first) || !strstr(err.text, second) ||
        strchr(err.text, '\n')) {
        fail_msg("status %d, \"%s\"; expected %d, \"%s\", \"%s\"", got, err.text, status, first,
                 second);
    }
    assert_null(result.owner);
}

static inline size_t count_of(const attn_tensor *t)
{
    size_t n = t->rank ? 1 : 0;
    for (uint32_t i = 0; i < t->rank; i++) {
        n *= (size_t)t->shape[i];
    }
    return n;
}

/* Of the latents, all of them or one image's. */
static inline double latents_distance(const attn_sag_result *a, size_t image_a,
                                      const attn_sag_result *b, size_t image_b)
{
    size_t each = count_of(&a->latents) / a->n_images;
    return relative_l2((const float *)a->latents.data + image_a * each,
                       (const float *)b->latents.data + image_b * each, each);
}

static inline void latents_equal(const attn_sag_result *a, const attn_sag_result *b)
{
    assert_int_equal(count_of(&a->latents), count_of(&b->latents));
    assert_memory_equal(a->latents.data, b->latents.data, count_of(&a->latents) * sizeof(float));
}

#endif
