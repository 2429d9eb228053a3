/* CLIP text encoders against transformers 4.37.2, each clip_skip. */
#include "machine.h"
#include "text_encoder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct text_encoder *encoder_open(struct machine *m, const char *model, const char *op)
{
    ATTN_ERROR_ON(err, 512);
    char folder[512];
    struct text_encoder *t = NULL;
    model_folder(folder, model, "text_encoder");
    if (text_encoder_open(m->compute, folder, op, &t, &err) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
    return t;
}

static void compare(struct text_encoder *t, const safetensors *golden, const char *model,
                    const char *op, uint32_t clip_skip)
{
    static const char *const outs[] = {"last_hidden_state", "clip_skip_1", "clip_skip_2"};
    ATTN_ERROR_ON(err, 512);
    const safetensors_tensor *ids = golden_find(golden, "input_ids");
    const safetensors_tensor *expected = golden_find(golden, outs[clip_skip]);
    attn_tensor out = poisoned(3, expected->shape);
    double error;
    if (text_encoder_run(t, ids->shape[0], ids->data, clip_skip, out.data, &err) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
    error = relative_l2(out.data, expected->data, count_of(&out));
    print_message("text encoder %-10s %-16s clip_skip %u  %.2e\n", model, op ? op : "auto",
                  clip_skip, error);
    assert_true(error <= 1e-5);
    free(out.data);
}

static void matches_transformers(void **state)
{
    struct machine *m = *state;
    static const char *const ops[] = {NULL, "math"};
    for (size_t i = 0; i < n_models; i++) {
        safetensors *golden = golden_open("text_encoder", model_names[i]);
        for (size_t o = 0; o < 2; o++) {
            struct text_encoder *t = encoder_open(m, model_names[i], ops[o]);
            assert_int_equal(text_encoder_tokens(t), 77);
            for (uint32_t skip = 0; skip < 3; skip++) {
                compare(t, golden, model_names[i], ops[o], skip);
            }
            text_encoder_close(t);
        }
        safetensors_close(golden);
    }
}

static void expect_refused(struct text_encoder *t, int64_t batch, int32_t id, uint32_t clip_skip,
                           const char *named)
{
    ATTN_ERROR_ON(err, 512);
    int32_t ids[77] = {0};
    float *out = calloc(77 * 20, sizeof(*out));
    assert_non_null(out);
    ids[76] = id;
    assert_int_equal(text_encoder_run(t, batch, ids, clip_skip, out, &err), ATTN_INVALID);
    assert_non_null(strstr(err.text, named));
    free(out);
}

static void refuses_what_it_cannot_run(void **state)
{
    struct text_encoder *t = encoder_open(*state, "tiny-sd1", NULL);
    expect_refused(t, 1, 99, 0, "99");
    expect_refused(t, 1, -1, 0, "-1");
    expect_refused(t, 0, 1, 0, "0 prompts");
    expect_refused(t, 1, 1, 4, "clip_skip is 4");
    text_encoder_close(t);
}

static void refuses_an_unknown_op(void **state)
{
    struct machine *m = *state;
    ATTN_ERROR_ON(err, 512);
    struct text_encoder *t = encoder_open(m, "tiny-sd1", "no_such_op");
    const int32_t ids[77] = {0};
    float *out = calloc(77 * 20, sizeof(*out));
    assert_non_null(out);
    assert_int_not_equal(text_encoder_run(t, 1, ids, 0, out, &err), ATTN_OK);
    assert_non_null(strstr(err.text, "no_such_op"));
    free(out);
    text_encoder_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_transformers),
        cmocka_unit_test(refuses_what_it_cannot_run),
        cmocka_unit_test(refuses_an_unknown_op),
    };
    return cmocka_run_group_tests(tests, machine_open, machine_close);
}
