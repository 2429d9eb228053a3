/* Text encoders, UNets and decoders on a GPU in fp32, against diffusers 0.26.3 and transformers
 * 4.37.2.  Exit 77, which Meson counts as skipped, where there is no GPU. */
#include "compute_cuda.h"
#include "machine.h"
#include "text_encoder.h"
#include "unet.h"
#include "vae.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const attn_tensor f32 = {.code = ATTN_CODE_FLOAT, .bits = 32, .lanes = 1};

/* The machine's CPU makes room for the GPU. */
static int gpu_open(void **state)
{
    ATTN_ERROR_ON(err, 512);
    struct compute *gpu = NULL;
    if (machine_open(state) != 0)
        return -1;
    struct machine *m = *state;
    if (compute_cuda_create(m->registry, 0, &f32, &gpu, &err) != ATTN_OK) {
        print_error("%s\n", err.text);
        return -1;
    }
    m->compute->api->destroy(m->compute);
    m->compute = gpu;
    return 0;
}

/* At the device, written from host memory: scratch of the pass. */
static attn_tensor brought(attn_work *w, const attn_tensor *host)
{
    const attn_tensor t = work_take(w, NULL, host->rank, host->shape);
    work_compute(w)->api->write(w, host, &t);
    return t;
}

static void fetch(attn_work *w, const attn_tensor *t, const attn_tensor *host)
{
    work_compute(w)->api->read(w, t, host);
    work_compute(w)->api->synchronize(w);
}

struct stored {
    attn_tensor sample, timestep, encoder, out, expected;
};

static struct stored stored_unet(const safetensors *golden)
{
    const safetensors_tensor *states = golden_find(golden, "encoder_hidden_states");
    const safetensors_tensor *timestep = golden_find(golden, "timestep");
    struct stored s = {.sample = golden_picture(golden, "sample"),
                       .expected = golden_picture(golden, "out")};
    s.timestep = poisoned(1, s.sample.shape);
    for (int64_t i = 0; i < s.sample.shape[0]; i++)
        ((float *)s.timestep.data)[i] = (float)((const int32_t *)timestep->data)[0];
    s.encoder = poisoned(3, states->shape);
    memcpy(s.encoder.data, states->data, states->bytes);
    s.out = poisoned(4, s.sample.shape);
    return s;
}

static void unet_queue(attn_work *w, struct unet *u, const struct stored *s)
{
    struct unet_call call = {.sample = brought(w, &s->sample),
                             .timestep = brought(w, &s->timestep),
                             .encoder = brought(w, &s->encoder),
                             .out = work_take(w, NULL, 4, s->out.shape)};
    const uint64_t mark = work_mark(w);
    unet_forward(w, u, &call);
    work_reset(w, mark);
    fetch(w, &call.out, &s->out);
}

static void decode_queue(attn_work *w, struct vae *v, const struct stored *s)
{
    const attn_tensor latents = brought(w, &s->sample);
    const attn_tensor out = work_take(w, NULL, 4, s->out.shape);
    vae_decode(w, v, &latents, &out);
    fetch(w, &out, &s->out);
}

/* Dry and real, and how far it is from what is stored. */
static void compare(struct machine *m, struct unet *u, struct vae *v, struct stored *s,
                    const char *what)
{
    ATTN_ERROR_ON(err, 512);
    struct pass *pass = NULL;
    assert_int_equal(pass_create(m->compute, &pass, &err), ATTN_OK);
    for (int real = 0; real < 2; real++) {
        attn_work *w = real ? pass_real(pass, NULL, &err) : pass_dry(pass, &err);
        assert_non_null(w);
        if (u)
            unet_queue(w, u, s);
        else
            decode_queue(w, v, s);
        if (w->status != ATTN_OK)
            fail_msg("%s: %s", what, err.text);
    }
    double error = relative_l2(s->out.data, s->expected.data, count_of(&s->expected));
    print_message("%-24s %.2e\n", what, error);
    assert_true(error <= 1e-5);
    pass_destroy(pass);
    attn_tensor *all[] = {&s->sample, &s->timestep, &s->encoder, &s->out, &s->expected};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]->data);
}

static void unets(void **state)
{
    struct machine *m = *state;
    for (size_t i = 0; i < n_models; i++) {
        ATTN_ERROR_ON(err, 512);
        char folder[512], what[64];
        struct unet *u = NULL;
        safetensors *golden = golden_open("unet", model_names[i]);
        model_folder(folder, model_names[i], "unet");
        if (unet_open(m->compute, folder, NULL, &u, &err) != ATTN_OK)
            fail_msg("%s", err.text);
        struct stored s = stored_unet(golden);
        (void)snprintf(what, sizeof what, "unet %s", model_names[i]);
        compare(m, u, NULL, &s, what);
        unet_close(u);
        safetensors_close(golden);
    }
}

static void decoders(void **state)
{
    struct machine *m = *state;
    for (size_t i = 0; i < n_models; i++) {
        ATTN_ERROR_ON(err, 512);
        char folder[512], what[64];
        struct vae *v = NULL;
        safetensors *golden = golden_open("vae", model_names[i]);
        model_folder(folder, model_names[i], "vae");
        if (vae_open(m->compute, folder, NULL, &v, &err) != ATTN_OK)
            fail_msg("%s", err.text);
        struct stored s = {.sample = golden_picture(golden, "latents"),
                           .expected = golden_picture(golden, "image")};
        s.out = poisoned(4, s.expected.shape);
        (void)snprintf(what, sizeof what, "decoder %s", model_names[i]);
        compare(m, NULL, v, &s, what);
        vae_close(v);
        safetensors_close(golden);
    }
}

static void text_encoders(void **state)
{
    struct machine *m = *state;
    for (size_t i = 0; i < n_models; i++) {
        ATTN_ERROR_ON(err, 512);
        char folder[512];
        struct text_encoder *t = NULL;
        safetensors *golden = golden_open("text_encoder", model_names[i]);
        const safetensors_tensor *ids = golden_find(golden, "input_ids");
        const safetensors_tensor *expected = golden_find(golden, "last_hidden_state");
        attn_tensor out = poisoned(3, expected->shape);
        model_folder(folder, model_names[i], "text_encoder");
        if (text_encoder_open(m->compute, folder, NULL, &t, &err) != ATTN_OK ||
            text_encoder_run(t, ids->shape[0], ids->data, 0, out.data, &err) != ATTN_OK)
            fail_msg("%s", err.text);
        double error = relative_l2(out.data, expected->data, count_of(&out));
        print_message("text encoder %-11s %.2e\n", model_names[i], error);
        assert_true(error <= 1e-5);
        text_encoder_close(t);
        free(out.data);
        safetensors_close(golden);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_encoders),
        cmocka_unit_test(unets),
        cmocka_unit_test(decoders),
    };
    ATTN_ERROR_ON(err, 512);
    struct compute *gpu = NULL;
    if (compute_cuda_create(NULL, 0, &f32, &gpu, &err) != ATTN_OK) {
        print_message("SKIP models on a GPU: %s\n", err.text);
        return 77;
    }
    gpu->api->destroy(gpu);
    return cmocka_run_group_tests(tests, gpu_open, machine_close);
}
