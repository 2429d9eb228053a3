/* Pipelines that share their components: the same pictures as alone, one after the other and at
 * once, whatever is closed first.  Under ThreadSanitizer this is the proof that weights are read
 * only (see the pipeline's README for the command).
 *
 * Arguments: the built-in model's folder, the folder of plugins. */
#include "demo.h"

#include <pthread.h>

enum { PIPELINES = 3, RUNS = 3 };

static attn_sag *join(const char *scheduler)
{
    ATTN_ERROR_ON(err, 512);
    attn_sag *sag = NULL;
    const attn_sag_open_options o = {.size = sizeof o, .components = demo, .scheduler = scheduler};
    if (attn_sag_open(registry, &o, &sag, &err)) {
        fail_msg("%s", err.text);
    }
    return sag;
}

/* Pipelines of different shapes, so that each has plans of its own. */
static attn_sag_run_options request(int which)
{
    attn_sag_run_options o = demo_request();
    o.n_prompts = which == 1 ? 2 : 1;
    o.width = which == 2 ? 32 : 48;
    o.guidance_scale = which == 2 ? 1 : 5;
    o.flags = ATTN_SAG_SET_GUIDANCE;
    return o;
}

struct worker {
    pthread_t thread;
    attn_sag *sag;
    int which;
    attn_status status;
    char text[512];
    attn_sag_result results[RUNS];
};

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    attn_error err = {.size = sizeof err, .capacity = sizeof w->text, .text = w->text};
    const attn_sag_run_options o = request(w->which);
    for (int i = 0; i < RUNS && !w->status; i++) {
        w->results[i] = (attn_sag_result){.size = sizeof w->results[i]};
        w->status = attn_sag_run(w->sag, &o, &w->results[i], &err);
    }
    return NULL;
}

static void test_at_once(void **state)
{
    static struct worker workers[PIPELINES];
    attn_sag_result alone[PIPELINES];
    (void)state;
    for (int i = 0; i < PIPELINES; i++) {
        const attn_sag_run_options o = request(i);
        alone[i] = demo_run(demo, &o);
        workers[i] = (struct worker){.sag = join(NULL), .which = i};
    }
    for (int i = 0; i < PIPELINES; i++) {
        assert_int_equal(pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]), 0);
    }
    for (int i = 0; i < PIPELINES; i++) {
        assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
    }
    for (int i = 0; i < PIPELINES; i++) {
        if (workers[i].status) {
            fail_msg("pipeline %d: %s", i, workers[i].text);
        }
        for (int k = 0; k < RUNS; k++) {
            latents_equal(&workers[i].results[k], &alone[i]);
            assert_memory_equal(workers[i].results[k].images.data, alone[i].images.data,
                                count_of(&alone[i].images) * sizeof(float));
            attn_sag_result_free(&workers[i].results[k]);
        }
        attn_sag_close(workers[i].sag);
        attn_sag_result_free(&alone[i]);
    }
}

/* The one that loaded the components may go first. */
static void test_first_closed_first(void **state)
{
    ATTN_ERROR_ON(err, 512);
    attn_sag *first = NULL;
    attn_sag *second = NULL;
    const attn_sag_open_options own = {.size = sizeof own, .model = demo_folder};
    attn_sag_open_options shared = {.size = sizeof shared};
    const attn_sag_run_options o = demo_request();
    (void)state;
    assert_int_equal(attn_sag_open(registry, &own, &first, &err), ATTN_OK);
    shared.components = first;
    assert_int_equal(attn_sag_open(registry, &shared, &second, &err), ATTN_OK);
    attn_sag_result before = demo_run(first, &o);
    attn_sag_close(first);
    attn_sag_result after = demo_run(second, &o);
    latents_equal(&before, &after);
    const char *layer = NULL;
    const char *processor = NULL;
    const char *op = NULL;
    assert_int_equal(attn_sag_layer(second, 0, &layer, &processor, &op), ATTN_OK);
    assert_string_equal(processor, "org.attnplug.standard");
    attn_sag_close(second);
    attn_sag_result_free(&before);
    attn_sag_result_free(&after);
}

static void test_scheduler_is_own(void **state)
{
    (void)state;
    attn_sag *sag = join("DDIMScheduler");
    assert_string_equal(attn_sag_scheduler(sag), "DDIMScheduler");
    attn_sag_close(sag);
    ATTN_ERROR_ON(err, 512);
    const attn_sag_open_options bad = {
        .size = sizeof bad, .components = demo, .scheduler = "NoScheduler"};
    assert_int_equal(attn_sag_open(registry, &bad, &sag, &err), ATTN_UNSUPPORTED);
    assert_null(sag);
}

static void test_contradictions(void **state)
{
    const attn_sag_processor processor = {
        .spec = {.size = sizeof processor.spec, .processor = "standard"}};
    const attn_sag_open_options base = {.size = sizeof base, .components = demo};
    attn_sag_open_options all[6] = {base, base, base, base, base, base};
    static const char *const names[] = {"model",     "device", "dtype",
                                        "n_threads", "op",     "processors"};
    (void)state;
    all[0].model = demo_folder;
    all[1].device = "cpu";
    all[2].dtype = "f32";
    all[3].n_threads = 1;
    all[4].op = "math";
    all[5].processors = &processor;
    all[5].n_processors = 1;
    for (int i = 0; i < 6; i++) {
        ATTN_ERROR_ON(err, 512);
        attn_sag *sag = NULL;
        assert_int_equal(attn_sag_open(registry, &all[i], &sag, &err), ATTN_INVALID);
        assert_non_null(strstr(err.text, "components and "));
        assert_non_null(strstr(err.text, names[i]));
        assert_null(sag);
    }
}

/* A pipeline for prompts encodes, and neither draws nor lends what it lacks. */
static void test_prompts_only(void **state)
{
    ATTN_ERROR_ON(err, 512);
    attn_sag *prompts = NULL;
    attn_sag *other = NULL;
    attn_tensor embeds;
    const attn_sag_run_options o = demo_request();
    const attn_sag_open_options open = {
        .size = sizeof open, .flags = ATTN_SAG_PROMPTS_ONLY, .model = demo_folder};
    attn_sag_open_options shared = {.size = sizeof shared};
    (void)state;
    assert_int_equal(attn_sag_open(registry, &open, &prompts, &err), ATTN_OK);
    assert_int_equal(attn_sag_encode(prompts, o.prompts, 1, 0, &embeds, NULL, 0, &err), ATTN_OK);
    attn_sag_embeds_free(&embeds);
    demo_refused(prompts, &o, ATTN_INVALID, "opened for prompts only", "");
    shared.components = prompts;
    assert_int_equal(attn_sag_open(registry, &shared, &other, &err), ATTN_INVALID);
    assert_non_null(strstr(err.text, "components: those of a pipeline with ATTN_SAG_PROMPTS_ONLY"));
    attn_sag_close(prompts);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_at_once),          cmocka_unit_test(test_first_closed_first),
        cmocka_unit_test(test_scheduler_is_own), cmocka_unit_test(test_contradictions),
        cmocka_unit_test(test_prompts_only),
    };
    if (argc != 3) {
        return 2;
    }
    demo_folder = argv[1];
    plugin_folder = argv[2];
    return cmocka_run_group_tests(tests, demo_setup, demo_teardown);
}
