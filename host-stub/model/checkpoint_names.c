/* checkpoint_names.c: original names to diffusers' (v0.26.3,
 * pipelines/stable_diffusion/convert_from_ckpt.py). */
#include "checkpoint_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_NAME 80 /* "down_blocks.I.attentions.J" with any two numbers */

struct pair {
    const char *from, *to;
};

/* The rest of `text` after `start`, NULL where it begins otherwise. */
static const char *after(const char *text, const char *start)
{
    const size_t n = strlen(start);
    return strncmp(text, start, n) == 0 ? text + n : NULL;
}

/* The number at the front with the dot that must follow it; NULL where there is none. */
static const char *number(const char *text, int64_t *value)
{
    char *end;
    if (*text < '0' || *text > '9') {
        return NULL;
    }
    *value = strtoll(text, &end, 10);
    return *end == '.' && *value < 1000 ? end + 1 : NULL;
}

/* out = block + the rest of a name with its first pair that fits exchanged. */
static void put(char out[CHECKPOINT_NAME], const char *block, const char *rest,
                const struct pair *pairs, size_t n_pairs)
{
    for (size_t i = 0; i < n_pairs; i++) {
        const char *tail = after(rest, pairs[i].from);
        if (tail) {
            (void)snprintf(out, CHECKPOINT_NAME, "%s.%s%s", block, pairs[i].to, tail);
            return;
        }
    }
    (void)snprintf(out, CHECKPOINT_NAME, "%s.%s", block, rest);
}

#define COUNT(list) (sizeof(list) / sizeof(*(list)))

/* -- the UNet -------------------------------------------------------------------------------- */

static const struct pair unet_resnet[] = {
    {"in_layers.0.", "norm1."},          {"in_layers.2.", "conv1."},
    {"out_layers.0.", "norm2."},         {"out_layers.3.", "conv2."},
    {"emb_layers.1.", "time_emb_proj."}, {"skip_connection.", "conv_shortcut."},
};

static const struct pair unet_top[] = {
    {"time_embed.0.", "time_embedding.linear_1."},
    {"time_embed.2.", "time_embedding.linear_2."},
    {"input_blocks.0.0.", "conv_in."},
    {"out.0.", "conv_norm_out."},
    {"out.2.", "conv_out."},
    {"label_emb.0.0.", "class_embedding.linear_1."},
    {"label_emb.0.2.", "class_embedding.linear_2."},
    {"label_emb.", "class_embedding."},
};

/* input_blocks.I.J: first the level's resnets, each with its attention beside, then its
 * downsampler. */
static int input_name(const struct checkpoint_unet *u, int64_t i, int64_t j, const char *rest,
                      char out[CHECKPOINT_NAME])
{
    char block[BLOCK_NAME];
    const int64_t level = (i - 1) / (u->layers + 1);
    const int64_t layer = (i - 1) % (u->layers + 1);
    const char *op = after(rest, "op.");
    if (i < 1 || level >= u->n_levels || j > 1) {
        return 0;
    }
    if (j == 0 && op) {
        (void)snprintf(out, CHECKPOINT_NAME, "down_blocks.%" PRId64 ".downsamplers.0.conv.%s",
                       level, op);
        return 1;
    }
    (void)snprintf(block, sizeof(block), "down_blocks.%" PRId64 ".%s.%" PRId64, level,
                   j ? "attentions" : "resnets", layer);
    put(out, block, rest, unet_resnet, j ? 0 : COUNT(unet_resnet));
    return 1;
}

/* output_blocks.I.J: resnet, attention where the level has one, and after a level's last the
 * upsampler. */
static int output_name(const struct checkpoint_unet *u, int64_t i, int64_t j, const char *rest,
                       char out[CHECKPOINT_NAME])
{
    char block[BLOCK_NAME];
    const int64_t index = i / (u->layers + 1);
    const int64_t layer = i % (u->layers + 1);
    if (index >= u->n_levels || j > 2) {
        return 0;
    }
    if (j > 0 && after(rest, "conv.")) {
        (void)snprintf(out, CHECKPOINT_NAME, "up_blocks.%" PRId64 ".upsamplers.0.%s", index, rest);
        return 1;
    }
    (void)snprintf(block, sizeof(block), "up_blocks.%" PRId64 ".%s.%" PRId64, index,
                   j ? "attentions" : "resnets", layer);
    put(out, block, rest, unet_resnet, j ? 0 : COUNT(unet_resnet));
    return 1;
}

static int middle_name(int64_t j, const char *rest, char out[CHECKPOINT_NAME])
{
    static const char *const blocks[] = {"mid_block.resnets.0", "mid_block.attentions.0",
                                         "mid_block.resnets.1"};
    if (j > 2) {
        return 0;
    }
    put(out, blocks[j], rest, unet_resnet, j == 1 ? 0 : COUNT(unet_resnet));
    return 1;
}

static int unet_block_name(const struct checkpoint_unet *u, const char *name,
                           char out[CHECKPOINT_NAME])
{
    int64_t i;
    int64_t j;
    const char *at;
    const char *rest;
    if ((at = after(name, "middle_block."))) {
        rest = number(at, &j);
        return rest && middle_name(j, rest, out);
    }
    if ((at = after(name, "input_blocks."))) {
        rest = number(at, &i);
        rest = rest ? number(rest, &j) : NULL;
        return rest && input_name(u, i, j, rest, out);
    }
    if ((at = after(name, "output_blocks."))) {
        rest = number(at, &i);
        rest = rest ? number(rest, &j) : NULL;
        return rest && output_name(u, i, j, rest, out);
    }
    return 0;
}

void unet_name(const struct checkpoint_unet *u, const char *name, char out[CHECKPOINT_NAME])
{
    for (size_t i = 0; i < COUNT(unet_top); i++) {
        const char *tail = after(name, unet_top[i].from);
        if (tail) {
            (void)snprintf(out, CHECKPOINT_NAME, "%s%s", unet_top[i].to, tail);
            return;
        }
    }
    if (!unet_block_name(u, name, out)) {
        (void)snprintf(out, CHECKPOINT_NAME, "%s", name);
    }
}

/* -- the autoencoder ------------------------------------------------------------------------- */

static const struct pair vae_resnet[] = {{"nin_shortcut.", "conv_shortcut."}};
static const struct pair vae_attention[] = {
    {"norm.", "group_norm."},   {"q.", "to_q."}, {"k.", "to_k."}, {"v.", "to_v."},
    {"proj_out.", "to_out.0."},
};
static const struct pair vae_half[] = {{"norm_out.", "conv_norm_out."}};

/* down.I.block.J., down.I.downsample., up.I.block.J., up.I.upsample. */
static int vae_level_name(const struct checkpoint_vae *v, const char *half, int up,
                          const char *rest, char out[CHECKPOINT_NAME])
{
    char block[BLOCK_NAME];
    int64_t i;
    int64_t j;
    const char *at = number(rest, &i);
    const char *tail;
    if (!at || i >= v->n_levels) {
        return 0;
    }
    i = up ? v->n_levels - 1 - i
           : i; /* the original counts the decoder's levels from the picture */
    if ((tail = after(at, up ? "upsample." : "downsample."))) {
        (void)snprintf(out, CHECKPOINT_NAME, "%s.%s_blocks.%" PRId64 ".%ssamplers.0.%s", half,
                       up ? "up" : "down", i, up ? "up" : "down", tail);
        return 1;
    }
    at = after(at, "block.");
    tail = at ? number(at, &j) : NULL;
    if (!tail) {
        return 0;
    }
    (void)snprintf(block, sizeof(block), "%s.%s_blocks.%" PRId64 ".resnets.%" PRId64, half,
                   up ? "up" : "down", i, j);
    put(out, block, tail, vae_resnet, COUNT(vae_resnet));
    return 1;
}

static int vae_half_name(const struct checkpoint_vae *v, const char *half, const char *rest,
                         char out[CHECKPOINT_NAME])
{
    static const char *const resnets[] = {"mid.block_1.", "mid.block_2."};
    char block[BLOCK_NAME];
    const char *at;
    for (int i = 0; i < 2; i++) {
        if ((at = after(rest, resnets[i]))) {
            (void)snprintf(block, sizeof(block), "%s.mid_block.resnets.%d", half, i);
            put(out, block, at, vae_resnet, COUNT(vae_resnet));
            return 1;
        }
    }
    if ((at = after(rest, "mid.attn_1."))) {
        (void)snprintf(block, sizeof(block), "%s.mid_block.attentions.0", half);
        put(out, block, at, vae_attention, COUNT(vae_attention));
        return 1;
    }
    if ((at = after(rest, "down."))) {
        return vae_level_name(v, half, 0, at, out);
    }
    if ((at = after(rest, "up."))) {
        return vae_level_name(v, half, 1, at, out);
    }
    put(out, half, rest, vae_half, COUNT(vae_half));
    return 1;
}

void vae_name(const struct checkpoint_vae *v, const char *name, char out[CHECKPOINT_NAME])
{
    const char *encoder = after(name, "encoder.");
    const char *decoder = after(name, "decoder.");
    if (!(encoder && vae_half_name(v, "encoder", encoder, out)) &&
        !(decoder && vae_half_name(v, "decoder", decoder, out))) {
        (void)snprintf(out, CHECKPOINT_NAME, "%s", name);
    }
}

/* -- OpenCLIP -------------------------------------------------------------------------------- */

static const struct pair openclip_layer[] = {
    {"ln_1.", "layer_norm1."},   {"ln_2.", "layer_norm2."}, {"mlp.c_fc.", "mlp.fc1."},
    {"mlp.c_proj.", "mlp.fc2."}, {"attn.", "self_attn."},
};

void openclip_name(const char *name, char out[CHECKPOINT_NAME], int32_t *cut)
{
    static const struct pair top[] = {
        {"positional_embedding", "text_model.embeddings.position_embedding.weight"},
        {"token_embedding.weight", "text_model.embeddings.token_embedding.weight"},
        {"ln_final.weight", "text_model.final_layer_norm.weight"},
        {"ln_final.bias", "text_model.final_layer_norm.bias"},
        {"text_projection", "text_projection.weight"},
    };
    const char *at = after(name, "transformer.resblocks.");
    const char *rest;
    int64_t layer;
    *cut = 0;
    for (size_t i = 0; i < COUNT(top); i++) {
        if (strcmp(name, top[i].from) == 0) {
            (void)snprintf(out, CHECKPOINT_NAME, "%s", top[i].to);
            return;
        }
    }
    rest = at ? number(at, &layer) : NULL;
    if (!rest) {
        (void)snprintf(out, CHECKPOINT_NAME, "%s", name);
        return;
    }
    if (strcmp(rest, "attn.in_proj_weight") == 0 || strcmp(rest, "attn.in_proj_bias") == 0) {
        (void)snprintf(out, CHECKPOINT_NAME, "text_model.encoder.layers.%" PRId64 ".self_attn.",
                       layer);
        *cut = 1;
        return;
    }
    char block[BLOCK_NAME];
    (void)snprintf(block, sizeof(block), "text_model.encoder.layers.%" PRId64, layer);
    put(out, block, rest, openclip_layer, COUNT(openclip_layer));
}
