/* Autoencoders' encoders against diffusers 0.26.3: moments, mode and a seeded sample. */
#include "machine.h"
#include "random.h"
#include "vae_encoder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const encoded[] = {"tiny-sd1", "tiny-sd2", "tiny-odd", "emoji-128"};

static struct vae_encoder *encoder_open(struct machine *m, const char *model, const char *op)
{
    ATTN_ERROR_ON(err, 512);
    char folder[512];
    struct vae_encoder *v = NULL;
    const struct model_source source = {.folder = folder};
    model_folder(folder, model, "vae");
    if (vae_encoder_open(m->compute, &source, op, &v, &err) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
    return v;
}

static void encode(struct machine *m, struct vae_encoder *v, const attn_tensor *pictures,
                   const attn_tensor *out)
{
    ATTN_ERROR_ON(err, 512);
    struct pass *pass = NULL;
    attn_work *w;
    assert_int_equal(pass_create(m->compute, &pass, &err), ATTN_OK);
    if (vae_encode(pass_dry(pass, &err), v, pictures, out) != ATTN_OK) {
        fail_msg("dry: %s", err.text);
    }
    w = pass_real(pass, NULL, &err);
    assert_non_null(w);
    poison_arena(w);
    if (vae_encode(w, v, pictures, out) != ATTN_OK) {
        fail_msg("real: %s", err.text);
    }
    pass_destroy(pass);
}

static const safetensors_tensor *part(const safetensors *golden, const char *model,
                                      const char *what)
{
    char name[64];
    (void)snprintf(name, sizeof(name), "%s.%s", model, what);
    return golden_find(golden, name);
}

/* Mode and sample of all pictures against the golden's; noise is drawn for all of them at once. */
static void compare_latents(const safetensors *golden, const char *model,
                            const attn_tensor *moments)
{
    const safetensors_tensor *mode = part(golden, model, "mode");
    const safetensors_tensor *sample = part(golden, model, "sample");
    const int64_t cells = moments->shape[1] * moments->shape[2];
    const int64_t each = cells * 4;
    const int64_t n = each * moments->shape[0];
    const float *values = moments->data;
    float *noise = malloc((size_t)n * sizeof(*noise));
    float *latents = malloc((size_t)n * sizeof(*latents));
    random_generator generator;
    double errors[2];
    assert_non_null(noise);
    assert_non_null(latents);
    random_seed(&generator, 5);
    random_normal(&generator, noise, (size_t)n);
    for (int64_t i = 0; i < moments->shape[0]; i++) {
        vae_latents(values + 2 * i * each, 4, cells, NULL, latents + i * each);
    }
    errors[0] = relative_l2(latents, mode->data, n);
    for (int64_t i = 0; i < moments->shape[0]; i++) {
        vae_latents(values + 2 * i * each, 4, cells, noise + i * each, latents + i * each);
    }
    errors[1] = relative_l2(latents, sample->data, n);
    print_message("vae encoder %-10s mode %.2e  sample %.2e\n", model, errors[0], errors[1]);
    assert_true(errors[0] <= 1e-5);
    assert_true(errors[1] <= 1e-5);
    free(latents);
    free(noise);
}

static void matches_diffusers(void **state)
{
    struct machine *m = *state;
    static const char *const ops[] = {NULL, "math"};
    safetensors *golden = golden_open("vae", "encode");
    for (size_t i = 0; i < sizeof(encoded) / sizeof(*encoded); i++) {
        char name[64];
        attn_tensor pictures;
        attn_tensor expected;
        (void)snprintf(name, sizeof(name), "%s.picture", encoded[i]);
        pictures = golden_picture(golden, name);
        (void)snprintf(name, sizeof(name), "%s.moments", encoded[i]);
        expected = golden_picture(golden, name);
        for (size_t o = 0; o < 2; o++) {
            struct vae_encoder *v = encoder_open(m, encoded[i], ops[o]);
            attn_tensor out = poisoned(4, expected.shape);
            double error;
            assert_int_equal(vae_encoder_latent_channels(v), 4);
            assert_int_equal(vae_encoder_side(v, pictures.shape[1]), expected.shape[1]);
            encode(m, v, &pictures, &out);
            error = relative_l2(out.data, expected.data, count_of(&out));
            print_message("vae encoder %-10s %-16s %.2e\n", encoded[i], ops[o] ? ops[o] : "auto",
                          error);
            assert_true(error <= 1e-5);
            compare_latents(golden, encoded[i], &out);
            free(out.data);
            vae_encoder_close(v);
        }
        free(pictures.data);
        free(expected.data);
    }
    safetensors_close(golden);
}

/* diffusers holds the logarithm of a variance to -30..20. */
static void logarithms_are_held(void **state)
{
    const float moments[4] = {1, 2, 100, -100}; /* two channels of one cell */
    const float noise[2] = {1, 1e6f};
    float latents[2];
    (void)state;
    vae_latents(moments, 2, 1, noise, latents);
    assert_true(latents[0] > 22027.0f && latents[0] < 22028.0f); /* 1 + e^10 */
    assert_true(latents[1] > 2.30f && latents[1] < 2.31f);       /* 2 + 1e6 e^-15 */
}

static void refuses_wrong_shapes(void **state)
{
    struct machine *m = *state;
    ATTN_ERROR_ON(err, 512);
    struct vae_encoder *v = encoder_open(m, "tiny-sd1", NULL);
    struct pass *pass = NULL;
    attn_tensor pictures = poisoned(4, (const int64_t[]){1, 16, 16, 3});
    attn_tensor out = poisoned(4, (const int64_t[]){1, 4, 4, 4});
    assert_int_equal(pass_create(m->compute, &pass, &err), ATTN_OK);
    assert_int_equal(vae_encode(pass_dry(pass, &err), v, &pictures, &out), ATTN_INVALID);
    assert_non_null(strstr(err.text, "[1, 4, 4, 8]"));
    pictures.shape[1] = 3;
    assert_int_equal(vae_encode(pass_dry(pass, &err), v, &pictures, &out), ATTN_INVALID);
    assert_non_null(strstr(err.text, "sides of 4 or more"));
    free(pictures.data);
    free(out.data);
    pass_destroy(pass);
    vae_encoder_close(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_diffusers),
        cmocka_unit_test(logarithms_are_held),
        cmocka_unit_test(refuses_wrong_shapes),
    };
    return cmocka_run_group_tests(tests, machine_open, machine_close);
}
