/* Each argument of the call does what diffusers' of the same name does; what contradicts is
 * refused.
 *
 * Arguments: the built-in model's folder, the folder of plugins. */
#include "demo.h"

#include <pthread.h>

#include "pass.h"
#include "random.h"
#include "sag_private.h"

/* -- what comes out ---------------------------------------------------------------------------- */

static void test_output_types(void **state)
{
    attn_sag_run_options o = demo_request();
    (void)state;
    o.num_images_per_prompt = 2;
    attn_sag_result np = demo_run(demo, &o);
    o.output_type = "pil";
    attn_sag_result pil = demo_run(demo, &o);
    o.output_type = "pt";
    attn_sag_result pt = demo_run(demo, &o);
    o.output_type = "latent";
    attn_sag_result latent = demo_run(demo, &o);
    const float *floats = np.images.data;
    const float *planes = pt.images.data;
    const uint8_t *bytes = pil.images.data;
    assert_int_equal(np.images.shape[3], 3);
    assert_int_equal(pil.images.bits, 8);
    assert_int_equal(pil.images.code, ATTN_CODE_UINT);
    assert_int_equal(pt.images.shape[1], 3);
    assert_int_equal(pt.images.shape[3], 48);
    assert_int_equal(latent.images.rank, 0);
    for (size_t i = 0; i < 2; i++) {
        for (size_t cell = 0; cell < 32 * 48; cell++) {
            for (size_t c = 0; c < 3; c++) {
                float value = floats[(i * 32 * 48 + cell) * 3 + c];
                assert_true(value >= 0 && value <= 1);
                assert_int_equal(bytes[(i * 32 * 48 + cell) * 3 + c], lrintf(value * 255.0f));
                assert_true(planes[(i * 3 + c) * 32 * 48 + cell] == value);
            }
        }
    }
    latents_equal(&latent, &np);
    o.output_type = "jpeg";
    demo_refused(demo, &o, ATTN_INVALID, "output_type: \"jpeg\"", "np, pt, pil or latent");
    attn_sag_result_free(&np);
    attn_sag_result_free(&pil);
    attn_sag_result_free(&pt);
    attn_sag_result_free(&latent);
}

/* The default, all in one batch, and one by one give the same pictures; one by one takes less. */
static void test_vae_slicing(void **state)
{
    attn_sag_run_options o = demo_request();
    (void)state;
    o.num_images_per_prompt = 3;
    o.flags = ATTN_SAG_VAE_SLICING;
    attn_sag *other = NULL;
    const attn_sag_open_options same = {.size = sizeof same, .components = demo};
    assert_int_equal(attn_sag_open(registry, &same, &other, NULL), ATTN_OK);
    attn_sag_result sliced = demo_run(other, &o);
    o.flags = 0;
    attn_sag_result whole = demo_run(demo, &o);
    latents_equal(&sliced, &whole);
    double largest =
        largest_difference(sliced.images.data, whole.images.data, count_of(&whole.images));
    print_message("sliced and whole differ by %.2g at most\n", largest);
    assert_true(largest <= 1e-5);
    attn_sag_result_free(&sliced);
    attn_sag_result_free(&whole);
    attn_sag_close(other);
}

/* -- prompts ----------------------------------------------------------------------------------- */

static attn_tensor encode(const char *const *texts, uint32_t n, uint32_t clip_skip)
{
    ATTN_ERROR_ON(err, 512);
    attn_tensor embeds;
    if (attn_sag_encode(demo, texts, n, clip_skip, &embeds, NULL, 0, &err)) {
        fail_msg("%s", err.text);
    }
    return embeds;
}

/* Texts, and the embeddings that attn_sag_encode makes of them, draw the same. */
static void test_embeddings(void **state)
{
    ATTN_ERROR_ON(err, 256);
    assert_int_equal(attn_sag_encode(NULL, NULL, 0, 0, &(attn_tensor){0}, NULL, 0, &err),
                     ATTN_INVALID);
    assert_int_equal(attn_sag_encode(demo, NULL, 0, 0, NULL, NULL, 0, &err), ATTN_INVALID);
    assert_non_null(strstr(err.text, "where to put embeddings"));
    static const char *const negatives[] = {"dog", "cat"};
    attn_sag_run_options o = demo_request();
    (void)state;
    o.n_prompts = 2;
    o.negative_prompts = negatives;
    o.n_negative = 2;
    o.clip_skip = 1;
    attn_sag_result texts = demo_run(demo, &o);
    attn_tensor embeds = encode(o.prompts, 2, 1);
    attn_tensor negative = encode(negatives, 2, 0); /* clip_skip is the prompts' alone */
    o.prompts = NULL;
    o.n_prompts = 0;
    o.negative_prompts = NULL;
    o.n_negative = 0;
    o.clip_skip = 0;
    o.prompt_embeds = &embeds;
    o.negative_prompt_embeds = &negative;
    attn_sag_result given = demo_run(demo, &o);
    latents_equal(&texts, &given);
    attn_tensor plain = encode(demo_request().prompts, 2, 0);
    o.prompt_embeds = &plain;
    attn_sag_result unskipped = demo_run(demo, &o);
    assert_true(latents_distance(&given, 0, &unskipped, 0) > 1e-3);
    attn_sag_embeds_free(&plain);
    attn_sag_embeds_free(&embeds);
    attn_sag_embeds_free(&negative);
    attn_sag_result_free(&texts);
    attn_sag_result_free(&given);
    attn_sag_result_free(&unskipped);
}

/* Each prompt has its own negative one, and its pictures stand together. */
static void test_many_prompts(void **state)
{
    static const char *const negatives[] = {"dog", "cat"};
    const uint64_t seeds[] = {1, 2, 3, 4};
    attn_sag_run_options o = demo_request();
    (void)state;
    o.n_prompts = 2;
    o.negative_prompts = negatives;
    o.n_negative = 2;
    o.num_images_per_prompt = 2;
    o.seeds = seeds;
    o.n_seeds = 4;
    attn_sag_result all = demo_run(demo, &o);
    assert_int_equal(all.n_images, 4);
    for (uint32_t i = 0; i < 4; i++) {
        attn_sag_run_options one = demo_request();
        one.prompts = demo_request().prompts + i / 2;
        one.negative_prompts = negatives + i / 2;
        one.n_negative = 1;
        one.seeds = seeds + i;
        one.n_seeds = 1;
        attn_sag_result alone = demo_run(demo, &one);
        assert_true(latents_distance(&all, i, &alone, 0) <= 1e-5);
        attn_sag_result_free(&alone);
    }
    attn_sag_result_free(&all);
}

/* -- noise ------------------------------------------------------------------------------------- */

/* One generator draws for all: its second picture's start follows the first one's. */
static void test_one_generator(void **state)
{
    enum { EACH = 4 * 8 * 12 };
    static float noise[2 * EACH];
    const uint64_t seed = 9;
    random_generator generator;
    attn_sag_run_options o = demo_request();
    (void)state;
    o.num_images_per_prompt = 2;
    o.seeds = &seed;
    o.n_seeds = 1;
    attn_sag_result drawn = demo_run(demo, &o);
    random_seed(&generator, seed);
    random_normal(&generator, noise, 2 * EACH);
    /* the same numbers, given, with the rows' order turned by strides */
    attn_tensor latents = {.data = noise + EACH,
                           .shape = {2, 4, 8, 12},
                           .stride = {-EACH, 96, 12, 1},
                           .device_type = ATTN_DEVICE_CPU,
                           .code = ATTN_CODE_FLOAT,
                           .bits = 32,
                           .lanes = 1,
                           .rank = 4};
    o.latents = &latents;
    o.seeds = NULL;
    o.n_seeds = 0;
    o.height = 0;
    o.width = 0;
    attn_sag_result given = demo_run(demo, &o);
    assert_true(latents_distance(&drawn, 0, &given, 1) <= 1e-6);
    assert_true(latents_distance(&drawn, 1, &given, 0) <= 1e-6);
    assert_true(latents_distance(&drawn, 0, &given, 0) > 1e-2);
    attn_sag_result_free(&drawn);
    attn_sag_result_free(&given);
}

/* -- cross_attention_kwargs -------------------------------------------------------------------- */

struct heard {
    int warnings;
    char last[512];
};

static void log_hear(void *ctx, int32_t level, const char *text)
{
    struct heard *heard = ctx;
    heard->warnings += level == 1;
    snprintf(heard->last, sizeof heard->last, "%s", text);
}

static void test_kwargs(void **state)
{
    ATTN_ERROR_ON(err, 512);
    struct heard heard = {0};
    attn_sag *sag = NULL;
    attn_param params[2] = {{.name = "scale", .kind = ATTN_PARAM_FLOAT, .f = 0.5},
                            {.name = "scale", .kind = ATTN_PARAM_INT, .i = 1}};
    const attn_sag_open_options same = {
        .size = sizeof same, .components = demo, .log = log_hear, .log_ctx = &heard};
    attn_sag_run_options o = demo_request();
    (void)state;
    o.output_type = "latent";
    assert_int_equal(attn_sag_open(registry, &same, &sag, &err), ATTN_OK);
    attn_sag_result plain = demo_run(sag, &o);
    o.cross_attention_kwargs = params;
    o.n_cross_attention_kwargs = 1;
    attn_sag_result scaled = demo_run(sag, &o); /* no layer has LoRA */
    latents_equal(&plain, &scaled);
    assert_int_equal(heard.warnings, 0);
    o.n_cross_attention_kwargs = 2;
    demo_refused(sag, &o, ATTN_INVALID, "cross_attention_kwargs", "scale is given twice");
    params[1] = (attn_param){.name = "scael", .kind = ATTN_PARAM_FLOAT, .f = 0.5};
    attn_sag_result misspelt = demo_run(sag, &o);
    assert_int_equal(heard.warnings, 1);
    assert_non_null(strstr(heard.last, "scael"));
    params[1] = (attn_param){.name = "a.scale", .kind = ATTN_PARAM_TEXT, .text = "x"};
    demo_refused(sag, &o, ATTN_INVALID, "cross_attention_kwargs", "a.scale is no finite number");
    params[1] = (attn_param){.name = "a.scale", .kind = ATTN_PARAM_FLOAT, .f = (double)NAN};
    demo_refused(sag, &o, ATTN_INVALID, "cross_attention_kwargs", "a.scale is no finite number");
    params[1] = (attn_param){.kind = ATTN_PARAM_FLOAT};
    demo_refused(sag, &o, ATTN_INVALID, "cross_attention_kwargs", "value 2 of 2 has no name");
    o.cross_attention_kwargs = NULL;
    demo_refused(sag, &o, ATTN_INVALID, "cross_attention_kwargs", "expected 2");
    attn_sag_result_free(&plain);
    attn_sag_result_free(&scaled);
    attn_sag_result_free(&misspelt);
    attn_sag_close(sag);
}

static int replays;

static attn_status replay_count(attn_work *w, const char *name, const void *key, size_t key_bytes,
                                attn_status (*body)(attn_work *w, void *arg), void *arg)
{
    (void)name;
    (void)key;
    (void)key_bytes;
    replays += !work_dry(w);
    return body(w, arg);
}

/* On a device that records work: predictions with runtime values are not replayed, since a
 * recording made with other values, or with none, would answer in their place. */
static void test_kwargs_are_not_replayed(void **state)
{
    const struct compute_api *plain = demo->compute->api;
    struct compute_api recording = *plain;
    attn_param params[] = {{.name = "scale", .kind = ATTN_PARAM_FLOAT, .f = 0}};
    attn_sag_run_options o = demo_request();
    (void)state;
    o.output_type = "latent";
    recording.replay = replay_count;
    demo->compute->api = &recording;
    replays = 0;
    attn_sag_result without = demo_run(demo, &o);
    assert_int_equal(replays, 2); /* both predictions of the second step */
    o.cross_attention_kwargs = params;
    o.n_cross_attention_kwargs = 1;
    attn_sag_result with = demo_run(demo, &o);
    assert_int_equal(replays, 2);
    demo->compute->api = plain;
    attn_sag_result_free(&without);
    attn_sag_result_free(&with);
}

/* -- callback ---------------------------------------------------------------------------------- */

enum { STEPS = 7 };

struct seen {
    uint32_t calls, stop_at; /* stop_at: the call that cancels, from 1; 0 none */
    uint32_t steps[STEPS];
    float timesteps[STEPS];
    float last[4 * 8 * 12];
};

static int32_t on_step(void *ctx, uint32_t step, uint32_t n_steps, float timestep,
                       const attn_tensor *latents)
{
    struct seen *seen = ctx;
    assert_int_equal(n_steps, STEPS);
    assert_int_equal(count_of(latents), 4 * 8 * 12);
    assert_true(seen->calls < STEPS);
    seen->steps[seen->calls] = step;
    seen->timesteps[seen->calls++] = timestep;
    memcpy(seen->last, latents->data, sizeof seen->last);
    return seen->calls == seen->stop_at;
}

static void test_callback_steps(void **state)
{
    struct seen seen = {0};
    attn_sag_run_options o = demo_request();
    (void)state;
    o.num_inference_steps = STEPS;
    o.callback = on_step;
    o.callback_ctx = &seen;
    o.callback_steps = 3;
    attn_sag_result result = demo_run(demo, &o);
    assert_int_equal(seen.calls, 3);
    for (uint32_t i = 0; i < 3; i++) {
        /* the folder's DDIM: 1000 / 7 = 142 apart, "leading", steps_offset 1 */
        assert_int_equal(seen.steps[i], 3 * i);
        assert_true(seen.timesteps[i] == (float)(142 * (6 - 3 * (int)i) + 1));
    }
    assert_memory_equal(seen.last, result.latents.data, sizeof seen.last);
    attn_sag_result_free(&result);
}

/* What a callback was told, for schedulers that warm up or take two calls for a step. */
struct told {
    uint32_t calls, first, last, n_steps;
};

static int32_t on_told(void *ctx, uint32_t step, uint32_t n_steps, float timestep,
                       const attn_tensor *latents)
{
    struct told *told = ctx;
    (void)timestep;
    (void)latents;
    told->first = told->calls++ ? told->first : step;
    told->last = step;
    told->n_steps = n_steps;
    return 0;
}

static void test_callback_orders(void **state)
{
    /* diffusers 0.26.3: PNDM without its Runge-Kutta start makes 5 steps 6 calls, the first of
     * which is warm-up */
    static const struct {
        const char *scheduler;
        struct told want;
    } cases[] = {{"DDIMScheduler", {5, 0, 4, 5}},
                 {"HeunDiscreteScheduler", {5, 0, 4, 5}},
                 {"PNDMScheduler", {5, 1, 5, 6}}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ATTN_ERROR_ON(err, 512);
        struct told told = {0};
        attn_sag *sag = NULL;
        attn_sag_run_options o = demo_request();
        const attn_sag_open_options open = {
            .size = sizeof open, .components = demo, .scheduler = cases[i].scheduler};
        assert_int_equal(attn_sag_open(registry, &open, &sag, &err), ATTN_OK);
        o.num_inference_steps = 5;
        o.output_type = "latent";
        o.callback = on_told;
        o.callback_ctx = &told;
        attn_sag_result result = demo_run(sag, &o);
        print_message("%s: %u calls, %u to %u of %u\n", cases[i].scheduler, told.calls, told.first,
                      told.last, told.n_steps);
        assert_memory_equal(&told, &cases[i].want, sizeof told);
        attn_sag_result_free(&result);
        attn_sag_close(sag);
    }
}

/* Stopped at any step the run leaves nothing, and the next one is as if nothing had been. */
static void test_cancel_at_each_step(void **state)
{
    attn_sag_run_options o = demo_request();
    (void)state;
    o.num_inference_steps = STEPS;
    o.output_type = "latent";
    attn_sag_result undisturbed = demo_run(demo, &o);
    for (uint32_t stop = 1; stop <= STEPS; stop++) {
        char text[32];
        struct seen seen = {.stop_at = stop};
        snprintf(text, sizeof text, "after %u of 7 steps", stop);
        o.callback = on_step;
        o.callback_ctx = &seen;
        demo_refused(demo, &o, ATTN_CANCELLED, text, "");
        assert_int_equal(seen.calls, stop);
    }
    o.callback = NULL;
    attn_sag_result after = demo_run(demo, &o);
    latents_equal(&undisturbed, &after);
    attn_sag_result_free(&undisturbed);
    attn_sag_result_free(&after);
}

/* Another thread that cancels when the first step has been told of. */
struct canceller {
    pthread_mutex_t lock;
    pthread_cond_t told;
    int begun;
};

static void *cancel_main(void *arg)
{
    struct canceller *c = arg;
    pthread_mutex_lock(&c->lock);
    while (!c->begun) {
        pthread_cond_wait(&c->told, &c->lock);
    }
    pthread_mutex_unlock(&c->lock);
    attn_sag_cancel(demo);
    return NULL;
}

static int32_t tell(void *ctx, uint32_t step, uint32_t n_steps, float timestep,
                    const attn_tensor *latents)
{
    struct canceller *c = ctx;
    (void)step;
    (void)n_steps;
    (void)timestep;
    (void)latents;
    pthread_mutex_lock(&c->lock);
    c->begun = 1;
    pthread_cond_signal(&c->told);
    pthread_mutex_unlock(&c->lock);
    return 0;
}

static void test_cancel_from_thread(void **state)
{
    struct canceller c = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};
    pthread_t thread;
    attn_sag_run_options o = demo_request();
    (void)state;
    o.num_inference_steps = 900; /* far more than pass before the other thread runs */
    o.callback = tell;
    o.callback_ctx = &c;
    assert_int_equal(pthread_create(&thread, NULL, cancel_main, &c), 0);
    demo_refused(demo, &o, ATTN_CANCELLED, "stopped after ", " of 900 steps");
    assert_int_equal(pthread_join(thread, NULL), 0);
    attn_sag_cancel(demo); /* between runs it means nothing */
    o = demo_request();
    attn_sag_result after = demo_run(demo, &o);
    attn_sag_result_free(&after);
}

/* -- contradictions ---------------------------------------------------------------------------- */

static void test_contradictions(void **state)
{
    static const char *const negatives[] = {"a", "b", "c"};
    const uint64_t seeds[] = {1, 2, 3};
    attn_tensor embeds = encode(demo_request().prompts, 1, 0);
    attn_sag_run_options o = demo_request();
    (void)state;
    o.prompt_embeds = &embeds;
    demo_refused(demo, &o, ATTN_INVALID, "prompt and prompt_embeds", "one of them");
    o.prompts = NULL;
    o.n_prompts = 0;
    o.clip_skip = 1;
    demo_refused(demo, &o, ATTN_INVALID, "clip_skip and prompt_embeds", "both given");
    o = demo_request();
    o.negative_prompts = negatives;
    o.n_negative = 1;
    o.negative_prompt_embeds = &embeds;
    demo_refused(demo, &o, ATTN_INVALID, "negative_prompt and negative_prompt_embeds", "one of");
    o.negative_prompt_embeds = NULL;
    o.n_prompts = 2;
    o.n_negative = 3;
    demo_refused(demo, &o, ATTN_INVALID, "negative_prompt: 3", "1 or 2");
    o = demo_request();
    o.num_images_per_prompt = 2;
    o.seeds = seeds;
    o.n_seeds = 3;
    demo_refused(demo, &o, ATTN_INVALID, "seed: 3", "1 or 2");
    o = demo_request();
    o.clip_skip = 99;
    demo_refused(demo, &o, ATTN_INVALID, "clip_skip is 99", "layers");
    static const double etas[] = {-0.001, 1.001, (double)NAN, (double)INFINITY};
    for (size_t i = 0; i < sizeof etas / sizeof *etas; i++) {
        o = demo_request();
        o.eta = etas[i];
        demo_refused(demo, &o, ATTN_INVALID, "eta: ", "0 to 1");
    }
    /* a negative embedding of another length, and for another number of prompts */
    attn_tensor other = embeds;
    o = demo_request();
    other.shape[1] = 76;
    o.negative_prompt_embeds = &other;
    demo_refused(demo, &o, ATTN_INVALID, "negative_prompt_embeds: [1, 76, 192]", "[1, 77, 192]");
    o.n_prompts = 2;
    o.negative_prompt_embeds = &embeds;
    demo_refused(demo, &o, ATTN_INVALID, "negative_prompt_embeds: [1, 77, 192]", "[2, 77, 192]");
    attn_sag_embeds_free(&embeds);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_output_types),        cmocka_unit_test(test_vae_slicing),
        cmocka_unit_test(test_embeddings),          cmocka_unit_test(test_many_prompts),
        cmocka_unit_test(test_one_generator),       cmocka_unit_test(test_kwargs),
        cmocka_unit_test(test_callback_steps),      cmocka_unit_test(test_callback_orders),
        cmocka_unit_test(test_cancel_at_each_step), cmocka_unit_test(test_cancel_from_thread),
        cmocka_unit_test(test_contradictions),      cmocka_unit_test(test_kwargs_are_not_replayed),
    };
    if (argc != 3) {
        return 2;
    }
    demo_folder = argv[1];
    plugin_folder = argv[2];
    demo_threads = 1; /* small pictures, and other tests run beside */
    return cmocka_run_group_tests(tests, demo_setup, demo_teardown);
}
