/* fused against standard, and the scratch of slices.
 *
 *   meson test -C build --benchmark processors      (bench_processors PLUGINS)
 *
 * Both processors run the same layer with the same op, by turns, and are compared before they are
 * timed.  Passes are the linears' reads of their input, counted by the fake compute; scratch is
 * what the op's prepare asks for. */
#include "attn_layer.h"
#include "plugin.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { TURNS = 15, TEXT = 512 };

static char text[TEXT];
static attn_error err = {sizeof err, sizeof text, text, 0};

struct shape {
    const char *name;
    int64_t tokens, channels, heads, context, context_channels; /* context 0: self */
};

static attn_tensor filled(uint32_t rank, int64_t a, int64_t b, int64_t c, float factor)
{
    attn_tensor t = {.device_type = ATTN_DEVICE_CPU,
                     .code = ATTN_CODE_FLOAT,
                     .bits = 32,
                     .lanes = 1,
                     .rank = rank};
    const int64_t shape[3] = {a, b, c};
    int64_t count = 1;
    for (uint32_t i = rank; i-- > 0;) {
        t.shape[i] = shape[i];
        t.stride[i] = count;
        count *= shape[i];
    }
    float *data = aligned_alloc(64, ((size_t)count * sizeof *data | 63) + 1);
    assert_non_null(data);
    for (int64_t i = 0; i < count; i++)
        data[i] = factor * ((float)rand() / (float)RAND_MAX - 0.5f); /* NOLINT: any numbers do */
    t.data = data;
    return t;
}

static attn_layer layer_of(const struct shape *s)
{
    const int64_t c = s->channels, e = s->context ? s->context_channels : c;
    const float scale = 2.0f / sqrtf((float)c);
    attn_layer l = {.size = sizeof l,
                    .name = s->name,
                    .heads = s->heads,
                    .dim_head = c / s->heads,
                    .query_dim = c,
                    .cross_dim = e,
                    .scale = 0,
                    .rescale = 1};
    l.to_q.weight = filled(2, c, c, 0, scale);
    l.to_k.weight = filled(2, c, e, 0, scale);
    l.to_v.weight = filled(2, c, e, 0, scale);
    l.to_out.weight = filled(2, c, c, 0, scale);
    l.to_out.bias = filled(1, c, 0, 0, scale);
    return l;
}

static double now_ms(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static int order(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Linears that the dry run of a layer makes. */
static uint32_t passes(const char *processor, const attn_layer *layer, attn_layer_call *call)
{
    struct plugin p;
    struct fake_run run = {0};
    attn_binding *b = NULL;
    plugin_open(&p, processor);
    assert_int_equal(plugin_bind(&p, layer, NULL, 0, &b), ATTN_OK);
    if (fake_prepare(&run, &p.fake, p.api, b, call) != ATTN_OK)
        fail_msg("%s", run.text);
    uint32_t count = p.fake.count[FAKE_LINEAR];
    fake_release(&run);
    p.api->unbind(b);
    plugin_close(&p);
    return count;
}

static void compare(attn_computer *computer, const struct shape *s)
{
    static const char *const names[2] = {"standard", "fused"};
    double ms[2][TURNS];
    attn_bound *bound[2];
    attn_layer layer = layer_of(s);
    attn_tensor out[2];
    attn_layer_call call = {.size = sizeof call, .hidden = filled(3, 2, s->tokens, s->channels, 2)};
    if (s->context)
        call.encoder = filled(3, 2, s->context, s->context_channels, 2);
    for (int i = 0; i < 2; i++) {
        const attn_layer_spec spec = {
            .size = sizeof spec, .processor = names[i], .op = "memory_efficient"};
        if (attn_layer_bind(computer, &layer, &spec, &bound[i], &err) != ATTN_OK)
            fail_msg("%s", text);
        out[i] = filled(3, 2, s->tokens, s->channels, 0);
    }
    for (int turn = -1; turn < TURNS; turn++)
        for (int i = 0; i < 2; i++) {
            call.out = out[i];
            double start = now_ms();
            if (attn_layer_run(bound[i], &call, &err) != ATTN_OK)
                fail_msg("%s", text);
            if (turn >= 0)
                ms[i][turn] = now_ms() - start;
        }
    double error = relative_error(out[1].data, out[0].data, tensor_count(&out[0]));
    assert_true(error <= 1e-5);
    uint32_t count[2];
    for (int i = 0; i < 2; i++) {
        qsort(ms[i], TURNS, sizeof *ms[i], order);
        count[i] = passes(names[i], &layer, &call);
        attn_layer_unbind(bound[i]);
    }
    print_message("%-28s standard %u linears %8.3f ms, fused %u linears %8.3f ms, ratio %.3f\n",
                  s->name, count[0], ms[0][TURNS / 2], count[1], ms[1][TURNS / 2],
                  ms[1][TURNS / 2] / ms[0][TURNS / 2]);
    assert_true(count[1] < count[0]);
    const attn_linear *linears[] = {&layer.to_q, &layer.to_k, &layer.to_v, &layer.to_out};
    for (int i = 0; i < 4; i++)
        free(linears[i]->weight.data);
    free(layer.to_out.bias.data);
    free(call.hidden.data);
    free(call.encoder.data);
    free(out[0].data);
    free(out[1].data);
}

/* What the op asks for, with key_mass, at B2 H8 4096 x 4096 D40. */
static void slices(attn_router *router)
{
    static const int64_t sizes[] = {16, 8, 4, 2, 1};
    const int64_t b = 2, h = 8, n = 4096, d = 40;
    attn_tensor q = {.device_type = ATTN_DEVICE_CPU,
                     .code = ATTN_CODE_FLOAT,
                     .bits = 32,
                     .lanes = 1,
                     .rank = 4,
                     .shape = {b, h, n, d},
                     .stride = {h * n * d, n * d, d, 1}};
    attn_tensor mass = {.device_type = ATTN_DEVICE_CPU,
                        .code = ATTN_CODE_FLOAT,
                        .bits = 32,
                        .lanes = 1,
                        .rank = 2,
                        .shape = {b, n},
                        .stride = {n, 1}};
    const attn_op_call call = {
        .size = sizeof call, .q = q, .k = q, .v = q, .out = q, .key_mass = mass};
    uint64_t before = UINT64_MAX;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const attn_param size = param_int("slice_size", sizes[i]);
        attn_plan *plan = NULL;
        uint64_t scratch = 0;
        if (attn_router_prepare(router, "sliced", &size, 1, 0, &call, &plan, &scratch, &err) !=
            ATTN_OK)
            fail_msg("%s", text);
        print_message("sliced, slice_size %2lld: scratch %8llu bytes\n", (long long)sizes[i],
                      (unsigned long long)scratch);
        assert_true(scratch <= before);
        before = scratch;
        attn_plan_release(plan);
    }
}

static void measure(void **state)
{
    (void)state;
    static const struct shape shapes[] = {
        {"self, 1024 tokens, 640", 1024, 640, 8, 0, 0},
        {"self, 256 tokens, 1280", 256, 1280, 8, 0, 0},
        {"self, 64 tokens, 1280", 64, 1280, 8, 0, 0},
        {"cross, 256 x 77, 1280, 768", 256, 1280, 8, 77, 768},
    };
    const char *folder = getenv("ATTNPLUG_TEST_PLUGINS");
    const attn_registry_options options = {.size = sizeof options,
                                           .flags =
                                               ATTN_REGISTRY_ONLY_PATHS | ATTN_REGISTRY_TRUST_ALL,
                                           .paths = &folder,
                                           .n_paths = 1};
    const attn_device cpu = {.type = ATTN_DEVICE_CPU, .runtime = "cpu"};
    attn_registry *registry = NULL;
    attn_computer *computer = NULL;
    assert_int_equal(attn_registry_open(&options, &registry, &err), ATTN_OK);
    assert_int_equal(attn_computer_open(registry, &cpu, 1, &computer, &err), ATTN_OK);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        compare(computer, &shapes[i]);
    slices(attn_computer_router(computer));
    attn_computer_close(computer);
    attn_registry_close(registry);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(measure)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
