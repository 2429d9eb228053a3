/* checkpoint_shapes.c: what a checkpoint is, by the shapes of its tensors. */
#include "checkpoint_private.h"

#include "attn_host.h"

#include <stdarg.h>
#include <string.h>

/* The tensor of a formatted name, of that rank; NULL where there is none. */
__attribute__((format(printf, 3, 4))) static const safetensors_tensor *
get(const struct checkpoint *c, uint32_t rank, const char *format, ...)
{
    char name[CHECKPOINT_NAME];
    const safetensors_tensor *t;
    va_list args;
    va_start(args, format);
    (void)vsnprintf(name, sizeof(name), format, args);
    va_end(args);
    t = safetensors_find(c->file, name);
    return t && (!rank || t->rank == rank) ? t : NULL;
}

static attn_status missing(const struct checkpoint *c, const char *name, attn_error *err)
{
    return attn_fail(err, ATTN_NOT_FOUND,
                     "%s: no tensor %s of the rank that it has in a Stable"
                     " Diffusion 1.x or 2.x checkpoint",
                     safetensors_path(c->file), name);
}

/* -- which family ---------------------------------------------------------------------------- */

static int32_t has_prefix(const struct checkpoint *c, const char *prefix)
{
    for (size_t i = 0; i < safetensors_count(c->file); i++) {
        if (strncmp(safetensors_at(c->file, i)->name, prefix, strlen(prefix)) == 0) {
            return 1;
        }
    }
    return 0;
}

/* Other things that come as one safetensors file. */
static attn_status family_check(const struct checkpoint *c, attn_error *err)
{
    static const struct {
        const char *prefix, *what;
    } others[] = {
        {"conditioner.embedders.", "a Stable Diffusion XL checkpoint"},
        {"model.diffusion_model.joint_blocks.", "a Stable Diffusion 3 checkpoint"},
        {"model.diffusion_model.double_blocks.", "a Flux checkpoint"},
        {"double_blocks.", "a Flux transformer"},
        {"control_model.", "a ControlNet"},
        {"lora_unet_", "a LoRA"},
        {"lora_te_", "a LoRA"},
        {"unet.down_blocks.", "a LoRA in diffusers' format"},
        {"down_blocks.", "a UNet in diffusers' format, which wants a folder around it"},
        {"text_model.", "a text encoder in diffusers' format, which wants a folder around it"},
        {"image_proj.", "an IP-Adapter"},
    };
    const char *path = safetensors_path(c->file);
    for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++) {
        if (has_prefix(c, others[i].prefix)) {
            return attn_fail(err, ATTN_UNSUPPORTED,
                             "%s: %s (it has %s*), expected a Stable Diffusion 1.x or 2.x"
                             " checkpoint",
                             path, others[i].what, others[i].prefix);
        }
    }
    if (!has_prefix(c, CHECKPOINT_UNET)) {
        return attn_fail(err, ATTN_UNSUPPORTED,
                         "%s: no tensor " CHECKPOINT_UNET "*, expected a Stable Diffusion 1.x or"
                         " 2.x checkpoint",
                         path);
    }
    return ATTN_OK;
}

/* -- the UNet -------------------------------------------------------------------------------- */

/* Transformer blocks of the attention that stands at `place`. */
static int64_t depth_at(const struct checkpoint *c, const char *place, int64_t block)
{
    int64_t depth = 0;
    while (depth < CHECKPOINT_DEPTH &&
           get(c, 2, CHECKPOINT_UNET "%s.%lld.1.transformer_blocks.%lld.attn2.to_k.weight", place,
               (long long)block, (long long)depth)) {
        depth++;
    }
    return depth;
}

/* One level from input block *i on; it ends with its downsampler, or with the input blocks. */
static attn_status level_measure(struct checkpoint *c, int64_t *i, attn_error *err)
{
    struct checkpoint_unet *u = &c->unet;
    const uint32_t level = u->n_levels++;
    const int64_t first = *i;
    const safetensors_tensor *conv;
    int64_t layers;
    while ((conv = get(c, 4, CHECKPOINT_UNET "input_blocks.%lld.0.in_layers.2.weight",
                       (long long)*i)) &&
           *i - first < CHECKPOINT_LAYERS) {
        u->channels[level] = conv->shape[0];
        (*i)++;
    }
    layers = *i - first;
    u->depth[level] = depth_at(c, "input_blocks", first);
    if (layers < 1 || (level && layers != u->layers)) {
        return attn_fail(err, ATTN_UNSUPPORTED,
                         "%s: level %u has %lld residual blocks, expected %s",
                         safetensors_path(c->file), level, (long long)layers,
                         level ? "as many as the first" : "one or more");
    }
    u->layers = layers;
    return ATTN_OK;
}

static attn_status unet_measure(struct checkpoint *c, attn_error *err)
{
    struct checkpoint_unet *u = &c->unet;
    const safetensors_tensor *first = get(c, 4, CHECKPOINT_UNET "input_blocks.0.0.weight");
    const safetensors_tensor *last = get(c, 4, CHECKPOINT_UNET "out.2.weight");
    const safetensors_tensor *context =
        get(c, 2, CHECKPOINT_UNET "middle_block.1.transformer_blocks.0.attn2.to_k.weight");
    const safetensors_tensor *label = get(c, 2, CHECKPOINT_UNET "label_emb.0.0.weight");
    int64_t i = 1;
    int more = 1;
    if (!first || !last || !context) {
        return missing(c,
                       !first  ? CHECKPOINT_UNET "input_blocks.0.0.weight"
                       : !last ? CHECKPOINT_UNET "out.2.weight"
                               : CHECKPOINT_UNET
                           "middle_block.1.transformer_blocks.0.attn2.to_k.weight",
                       err);
    }
    u->in_channels = first->shape[1];
    u->out_channels = last->shape[0];
    u->cross_dim = context->shape[1];
    u->class_inputs = label ? label->shape[1] : 0;
    u->linear = get(c, 2, CHECKPOINT_UNET "middle_block.1.proj_in.weight") != NULL;
    while (more) {
        attn_status status = u->n_levels < CHECKPOINT_LEVELS
                                 ? level_measure(c, &i, err)
                                 : attn_fail(err, ATTN_UNSUPPORTED, "%s: more than %d levels",
                                             safetensors_path(c->file), CHECKPOINT_LEVELS);
        if (status != ATTN_OK) {
            return status;
        }
        more = get(c, 4, CHECKPOINT_UNET "input_blocks.%lld.0.op.weight", (long long)i) != NULL;
        i++;
    }
    for (uint32_t level = 0; level < u->n_levels; level++) {
        u->up_depth[level] =
            depth_at(c, "output_blocks", (u->n_levels - 1 - level) * (u->layers + 1));
    }
    while (get(c, 2, CHECKPOINT_UNET "middle_block.1.transformer_blocks.%lld.attn2.to_k.weight",
               (long long)u->mid_depth) &&
           u->mid_depth < CHECKPOINT_DEPTH) {
        u->mid_depth++;
    }
    return ATTN_OK;
}

/* -- autoencoder and text encoder ------------------------------------------------------------ */

static attn_status vae_measure(struct checkpoint *c, attn_error *err)
{
    struct checkpoint_vae *v = &c->vae;
    const safetensors_tensor *first = get(c, 4, CHECKPOINT_VAE "decoder.conv_in.weight");
    const safetensors_tensor *last = get(c, 4, CHECKPOINT_VAE "decoder.conv_out.weight");
    const safetensors_tensor *conv;
    if (!first || !last) {
        return missing(c,
                       first ? CHECKPOINT_VAE "decoder.conv_out.weight"
                             : CHECKPOINT_VAE "decoder.conv_in.weight",
                       err);
    }
    v->latent_channels = first->shape[1];
    v->in_channels = v->out_channels = last->shape[0];
    while (v->n_levels < CHECKPOINT_LEVELS &&
           (conv = get(c, 4, CHECKPOINT_VAE "decoder.up.%u.block.0.conv1.weight", v->n_levels))) {
        v->channels[v->n_levels++] = conv->shape[0];
    }
    while (v->layers < CHECKPOINT_LAYERS &&
           get(c, 4, CHECKPOINT_VAE "decoder.up.0.block.%lld.conv1.weight",
               (long long)v->layers + 1)) {
        v->layers++;
    }
    return v->n_levels && v->layers
               ? ATTN_OK
               : missing(c, CHECKPOINT_VAE "decoder.up.0.block.1.conv1.weight", err);
}

/* CLIP's own names, with and without their prefix, or OpenCLIP's. */
static attn_status text_measure(struct checkpoint *c, attn_error *err)
{
    struct checkpoint_text *t = &c->text;
    const char *names[3]; /* token table, positions, a layer's first linear of its MLP */
    const char *prefix = CHECKPOINT_CLIP "text_model.";
    t->openclip = has_prefix(c, CHECKPOINT_OPEN);
    if (t->openclip) {
        prefix = CHECKPOINT_OPEN;
        names[0] = "token_embedding.weight";
        names[1] = "positional_embedding";
        names[2] = "transformer.resblocks.%lld.mlp.c_fc.weight";
    } else {
        prefix = has_prefix(c, prefix) ? prefix : CHECKPOINT_CLIP;
        names[0] = "embeddings.token_embedding.weight";
        names[1] = "embeddings.position_embedding.weight";
        names[2] = "encoder.layers.%lld.mlp.fc1.weight";
    }
    const safetensors_tensor *tokens = get(c, 2, "%s%s", prefix, names[0]);
    const safetensors_tensor *positions = get(c, 2, "%s%s", prefix, names[1]);
    const safetensors_tensor *inner = NULL;
    if (!tokens || !positions) {
        char name[CHECKPOINT_NAME];
        (void)snprintf(name, sizeof(name), "%s%s", prefix, names[tokens ? 1 : 0]);
        return missing(c, name, err);
    }
    for (;;) {
        char layer[CHECKPOINT_NAME / 2];
        const safetensors_tensor *found;
        (void)snprintf(layer, sizeof(layer),
                       t->openclip ? "transformer.resblocks.%lld.mlp.c_fc.weight"
                                   : "encoder.layers.%lld.mlp.fc1.weight",
                       (long long)t->layers);
        found = get(c, 2, "%s%s", prefix, layer);
        if (!found || t->layers == CHECKPOINT_DEPTH) {
            break;
        }
        inner = found;
        t->layers++;
    }
    if (!inner) {
        return missing(c, CHECKPOINT_CLIP "text_model.encoder.layers.0.mlp.fc1.weight", err);
    }
    t->vocabulary = tokens->shape[0];
    t->width = tokens->shape[1];
    t->tokens = positions->shape[0];
    t->inner = inner->shape[0];
    /* 2.x was trained on the states before the last of OpenCLIP's 24 layers */
    t->layers = t->openclip && t->layers > 23 ? 23 : t->layers;
    return ATTN_OK;
}

attn_status checkpoint_measure(struct checkpoint *c, attn_error *err)
{
    attn_status status = family_check(c, err);
    if (status == ATTN_OK) {
        status = unet_measure(c, err);
    }
    if (status == ATTN_OK) {
        status = vae_measure(c, err);
    }
    return status == ATTN_OK ? text_measure(c, err) : status;
}
