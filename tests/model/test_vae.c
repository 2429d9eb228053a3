/* Autoencoders' decoders against diffusers 0.26.3. */
#include "broken.h"
#include "vae.h"
#include "vae_tiles.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct vae *decoder_open(struct machine *m, const char *model, const char *op)
{
    ATTN_ERROR_ON(err, 512);
    char folder[512];
    struct vae *v = NULL;
    model_folder(folder, model, "vae");
    if (vae_open(m->compute, folder, op, &v, &err) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
    return v;
}

static void decode(struct machine *m, struct vae *v, const attn_tensor *latents,
                   const attn_tensor *out)
{
    ATTN_ERROR_ON(err, 512);
    struct pass *pass = NULL;
    attn_work *w;
    assert_int_equal(pass_create(m->compute, &pass, &err), ATTN_OK);
    if (vae_decode(pass_dry(pass, &err), v, latents, out) != ATTN_OK) {
        fail_msg("dry: %s", err.text);
    }
    w = pass_real(pass, NULL, &err);
    assert_non_null(w);
    poison_arena(w);
    if (vae_decode(w, v, latents, out) != ATTN_OK) {
        fail_msg("real: %s", err.text);
    }
    pass_destroy(pass);
}

static void matches_diffusers(void **state)
{
    struct machine *m = *state;
    static const char *const ops[] = {NULL, "math"};
    for (size_t i = 0; i < n_models; i++) {
        safetensors *golden = golden_open("vae", model_names[i]);
        attn_tensor latents = golden_picture(golden, "latents");
        attn_tensor expected = golden_picture(golden, "image");
        for (size_t o = 0; o < 2; o++) {
            struct vae *v = decoder_open(m, model_names[i], ops[o]);
            attn_tensor out = poisoned(4, expected.shape);
            double error;
            assert_int_equal(vae_latent_channels(v), 4);
            assert_int_equal(vae_factor(v) * latents.shape[1], expected.shape[1]);
            decode(m, v, &latents, &out);
            error = relative_l2(out.data, expected.data, count_of(&out));
            print_message("vae %-10s %-16s %.2e\n", model_names[i], ops[o] ? ops[o] : "auto",
                          error);
            assert_true(error <= 1e-5);
            free(out.data);
            vae_close(v);
        }
        free(latents.data);
        free(expected.data);
        safetensors_close(golden);
    }
}

static void decode_tiles(struct machine *m, struct vae *v, int64_t h, int64_t width,
                         const float *latents, float *pixels)
{
    ATTN_ERROR_ON(err, 512);
    struct pass *pass = NULL;
    assert_int_equal(pass_create(m->compute, &pass, &err), ATTN_OK);
    assert_int_equal(vae_decode_tiles(pass_dry(pass, &err), v, h, width, NULL, NULL), ATTN_OK);
    attn_work *w = pass_real(pass, NULL, &err);
    assert_non_null(w);
    poison_arena(w);
    if (vae_decode_tiles(w, v, h, width, latents, pixels) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
    pass_destroy(pass);
}

/* Larger than the model's own size: in tiles, as diffusers' tiled_decode makes and fades them. */
static void tiles_match_diffusers(void **state)
{
    struct machine *m = *state;
    safetensors *golden = golden_open("vae", "tiled");
    attn_tensor latents = golden_picture(golden, "latents");
    attn_tensor expected = golden_picture(golden, "image");
    attn_tensor out = poisoned(4, expected.shape);
    struct vae *v = decoder_open(m, "tiny-sd1", NULL);
    const int64_t h = latents.shape[1], width = latents.shape[2];
    assert_true(vae_tiles_help(v, h, width));
    assert_false(vae_tiles_help(v, vae_sample_size(v) / vae_factor(v), 1));
    decode_tiles(m, v, h, width, latents.data, out.data);
    double error = relative_l2(out.data, expected.data, count_of(&out));
    print_message("vae tiny-sd1   in tiles         %.2e\n", error);
    assert_true(error <= 1e-5);
    vae_close(v);
    free(latents.data);
    free(expected.data);
    free(out.data);
    safetensors_close(golden);
}

enum { H = 11, W = 13, FACTOR = 4, CHANNELS = 4 };

/* The tile of `side` latents whose first is [y, x], decoded by itself. */
static attn_tensor tile_alone(struct machine *m, struct vae *v, const float *latents, int64_t y,
                              int64_t x, int64_t side)
{
    attn_tensor tile = poisoned(4, (const int64_t[]){1, side, side, CHANNELS});
    attn_tensor out = poisoned(4, (const int64_t[]){1, FACTOR * side, FACTOR * side, 3});
    for (int64_t i = 0; i < side; i++) {
        memcpy((float *)tile.data + i * side * CHANNELS, latents + ((y + i) * W + x) * CHANNELS,
               (size_t)(side * CHANNELS) * sizeof(float));
    }
    decode(m, v, &tile, &out);
    free(tile.data);
    return out;
}

/* Models whose own size is no multiple of four latents: every pixel is written, and what no
 * neighbour fades into lies where its latents are. */
static void tiles_of_any_size_fit(void **state)
{
    struct machine *m = *state;
    static const struct {
        const char *size;
        int64_t tile, step;
    } cases[] = {{"1", 1, 1}, {"4", 1, 1}, {"11", 2, 1}, {"20", 5, 3}, {"24", 6, 4}};
    static float latents[H * W * CHANNELS];
    for (size_t i = 0; i < H * W * CHANNELS; i++) {
        latents[i] = (float)(i * 7919 % 200) / 100 - 1;
    }
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ATTN_ERROR_ON(err, 512);
        const int64_t step = cases[i].step, from = FACTOR * (cases[i].tile - step);
        struct broken b = broken_copy("tiny-sd1", "vae");
        struct vae *v = NULL;
        attn_tensor out = poisoned(4, (const int64_t[]){1, FACTOR * H, FACTOR * W, 3});
        broken_set(&b, "sample_size", cases[i].size);
        assert_int_equal(vae_open(m->compute, b.folder, NULL, &v, &err), ATTN_OK);
        decode_tiles(m, v, H, W, latents, out.data);
        for (int64_t k = 0; k < count_of(&out); k++) {
            assert_false(isnan(((const float *)out.data)[k]));
        }
        attn_tensor alone = tile_alone(m, v, latents, step, step, cases[i].tile);
        for (int64_t y = from; y < FACTOR * step; y++) {
            for (int64_t x = 3 * from; x < 3 * FACTOR * step; x++) {
                const int64_t at = (FACTOR * step + y) * FACTOR * W * 3 + FACTOR * step * 3 + x;
                const float want = ((const float *)alone.data)[y * alone.stride[1] + x];
                assert_true(fabsf(((const float *)out.data)[at] - want) <= 1e-5f);
            }
        }
        free(alone.data);
        free(out.data);
        vae_close(v);
        broken_remove(&b);
    }
}

static void refuses_wrong_shapes(void **state)
{
    struct machine *m = *state;
    ATTN_ERROR_ON(err, 512);
    struct vae *v = decoder_open(m, "tiny-sd1", NULL);
    struct pass *pass = NULL;
    attn_tensor latents = poisoned(4, (const int64_t[]){1, 4, 4, 4});
    attn_tensor out = poisoned(4, (const int64_t[]){1, 16, 15, 3});
    assert_int_equal(pass_create(m->compute, &pass, &err), ATTN_OK);
    assert_int_equal(vae_decode(pass_dry(pass, &err), v, &latents, &out), ATTN_INVALID);
    assert_non_null(strstr(err.text, "[1, 16, 16, 3]"));
    latents.shape[3] = 3;
    assert_int_equal(vae_decode(pass_dry(pass, &err), v, &latents, &out), ATTN_INVALID);
    assert_non_null(strstr(err.text, "[B, h, w, 4]"));
    free(latents.data);
    free(out.data);
    pass_destroy(pass);
    vae_close(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_diffusers),
        cmocka_unit_test(tiles_match_diffusers),
        cmocka_unit_test(tiles_of_any_size_fit),
        cmocka_unit_test(refuses_wrong_shapes),
    };
    return cmocka_run_group_tests(tests, machine_open, machine_close);
}
