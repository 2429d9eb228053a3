/* fuzz_adapters.c: any bytes as a file of an adapter of each kind: an error with a text, or what a
 * model may ask of it. */
#include "bytes_file.h"
#include "custom_diffusion.h"
#include "inversion.h"
#include "lora_set.h"

#include <math.h>
#include <string.h>

/* What a failure leaves behind: a text, and nothing else. */
static void check_failed(const attn_error *err, const void *made)
{
    if (!err->text[0] || made)
        abort();
}

/* The shapes that a model relies on when it takes a pair. */
static void pair_check(const struct lora_pair *p)
{
    if (p->down->shape[0] < 1 || p->up->shape[1] != p->down->shape[0] || !isfinite(p->factor))
        abort();
}

static void lora(const char *path)
{
    static const char *const unet[] = {"mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
                                       "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0",
                                       "conv_in"};
    static const char *const text[] = {"text_model.encoder.layers.0.self_attn.q_proj",
                                       "encoder.layers.0.self_attn.out_proj",
                                       "text_model.encoder.layers.0.mlp.fc1"};
    const struct lora_choice choice = {path, 0.5, 2};
    struct lora_set *set = NULL;
    struct lora_pair pair;
    float scales[LORA_MOST_FILES];
    ATTN_ERROR_ON(err, 4096);
    if (lora_set_open(&choice, 1, &set, &err) != ATTN_OK) {
        check_failed(&err, set);
        return;
    }
    for (int i = 0; i < 3; i++) {
        if (lora_set_take(set, 0, LORA_UNET, unet[i], &pair))
            pair_check(&pair);
        if (lora_set_take(set, 0, LORA_TEXT_ENCODER, text[i], &pair))
            pair_check(&pair);
    }
    if (lora_set_family(set, 768, &err) != ATTN_OK)
        check_failed(&err, NULL);
    err_text[0] = 0;
    if (lora_set_done(set, 0, NULL, NULL, &err) != ATTN_OK)
        check_failed(&err, NULL);
    if (lora_set_done(set, 1, NULL, NULL, &err) != ATTN_OK)
        abort();
    lora_set_scales(set, LORA_TEXT_ENCODER, 3, scales);
    if (scales[0] != 6)
        abort();
    lora_set_close(set);
}

static void inversion(const char *path)
{
    struct inversion v;
    ATTN_ERROR_ON(err, 4096);
    if (inversion_read(path, NULL, &v, &err) != ATTN_OK) {
        check_failed(&err, v.token ? (const void *)v.token : v.vectors);
        return;
    }
    for (int64_t i = 0; i < v.n * v.width; i++)
        if (!isfinite(v.vectors[i]))
            abort();
    if (!*v.token || strchr(v.token, ' '))
        abort();
    inversion_clear(&v);
}

static void custom(const char *path)
{
    static struct compute *compute;
    struct custom_diffusion *cd = NULL;
    attn_layer_spec spec = {.size = sizeof spec, .processor = "standard"};
    ATTN_ERROR_ON(err, 4096);
    if (!compute && compute_cpu_create(NULL, 1, &compute, &err) != ATTN_OK)
        abort();
    if (custom_diffusion_open(compute, path, &cd, &err) != ATTN_OK) {
        check_failed(&err, cd);
        return;
    }
    if (custom_diffusion_family(cd, 20, &err) != ATTN_OK)
        check_failed(&err, NULL);
    if (custom_diffusion_choose(cd, "mid_block.attentions.0.transformer_blocks.0.attn2", 0, &spec,
                                &err) != ATTN_OK)
        abort();
    if (spec.n_params && strcmp(spec.processor, "custom_diffusion") != 0)
        abort();
    err_text[0] = 0;
    if (custom_diffusion_done(cd, &err) != ATTN_OK)
        check_failed(&err, NULL);
    custom_diffusion_close(cd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes_file file = bytes_file_open(data, size);
    lora(file.path);
    inversion(file.path);
    custom(file.path);
    bytes_file_close(&file);
    return 0;
}
