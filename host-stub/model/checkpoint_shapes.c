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

/* OpenCLIP's names, and CLIP's own with and without their prefix. */
static const struct text_form {
    const char *prefix, *tokens, *positions;
    const char *layer, *inner; /* "<prefix><layer>0<inner>": a layer's first linear of its MLP */
} text_forms[] = {
    {CHECKPOINT_OPEN, "token_embedding.weight", "positional_embedding", "transformer.resblocks.",
     ".mlp.c_fc.weight"},
    {CHECKPOINT_CLIP "text_model.", "embeddings.token_embedding.weight",
     "embeddings.position_embedding.weight", "encoder.layers.", ".mlp.fc1.weight"},
    {CHECKPOINT_CLIP, "embeddings.token_embedding.weight", "embeddings.position_embedding.weight",
     "encoder.layers.", ".mlp.fc1.weight"},
};

static const struct text_form *text_form_find(const struct checkpoint *c)
{
    const size_t last = sizeof(text_forms) / sizeof(*text_forms) - 1;
    size_t i = 0;
    while (i < last && !has_prefix(c, text_forms[i].prefix)) {
        i++;
    }
    return &text_forms[i];
}

static const safetensors_tensor *text_inner(const struct checkpoint *c, const struct text_form *f,
                                            int64_t layer)
{
    return get(c, 2, "%s%s%lld%s", f->prefix, f->layer, (long long)layer, f->inner);
}

static attn_status text_measure(struct checkpoint *c, attn_error *err)
{
    struct checkpoint_text *t = &c->text;
    const struct text_form *f = text_form_find(c);
    const safetensors_tensor *tokens = get(c, 2, "%s%s", f->prefix, f->tokens);
    const safetensors_tensor *positions = get(c, 2, "%s%s", f->prefix, f->positions);
    const safetensors_tensor *inner = text_inner(c, f, 0);
    if (!tokens || !positions || !inner) {
        char name[CHECKPOINT_NAME];
        (void)snprintf(name, sizeof(name), "%s%s%s%s", f->prefix,
                       !tokens      ? f->tokens
                       : !positions ? f->positions
                                    : f->layer,
                       tokens && positions ? "0" : "", tokens && positions ? f->inner : "");
        return missing(c, name, err);
    }
    t->openclip = f == &text_forms[0];
    t->vocabulary = tokens->shape[0];
    t->width = tokens->shape[1];
    t->tokens = positions->shape[0];
    t->inner = inner->shape[0];
    while (t->layers < CHECKPOINT_DEPTH && text_inner(c, f, t->layers)) {
        t->layers++;
    }
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
