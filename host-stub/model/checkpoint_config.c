/* checkpoint_config.c: what shapes say, as diffusers' config files would say it. */
#include "checkpoint_private.h"

#include "attn_host.h"

/* 2.x is told by its text encoder's width, as diffusers tells it. */
static int32_t is_second(const struct checkpoint *c)
{
    return c->unet.cross_dim == 1024;
}

static json_t *numbers(const int64_t *values, uint32_t n)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < n; i++) {
        (void)json_array_append_new(list, json_integer(values[i]));
    }
    return list;
}

static json_t *texts(const char *text, uint32_t n)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < n; i++) {
        (void)json_array_append_new(list, json_string(text));
    }
    return list;
}

/* Block types by level; the up blocks are listed from the deepest. */
static json_t *block_types(const struct checkpoint_unet *u, int up)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < u->n_levels; i++) {
        const int64_t depth = up ? u->up_depth[u->n_levels - 1 - i] : u->depth[i];
        const char *name = up ? (depth ? "CrossAttnUpBlock2D" : "UpBlock2D")
                              : (depth ? "CrossAttnDownBlock2D" : "DownBlock2D");
        (void)json_array_append_new(list, json_string(name));
    }
    return list;
}

/* transformer_layers_per_block: a level without attention has the mid block's number if it is the
 * deepest, and else one that nobody reads. */
static json_t *depths(const struct checkpoint_unet *u)
{
    int64_t list[CHECKPOINT_LEVELS];
    for (uint32_t i = 0; i < u->n_levels; i++) {
        list[i] = u->depth[i] ? u->depth[i] : i + 1 == u->n_levels ? u->mid_depth : 1;
    }
    return numbers(list, u->n_levels);
}

/* attention_head_dim, diffusers' name for the number of heads. */
static json_t *heads(const struct checkpoint_unet *u)
{
    int64_t list[CHECKPOINT_LEVELS];
    for (uint32_t i = 0; i < u->n_levels; i++) {
        list[i] = u->linear ? u->channels[i] / 64 : 8;
    }
    return numbers(list, u->n_levels);
}

static json_t *unet_config(const struct checkpoint *c)
{
    const struct checkpoint_unet *u = &c->unet;
    json_t *class_inputs = u->class_inputs ? json_integer(u->class_inputs) : json_null();
    return json_pack("{s:s, s:i, s:I, s:I, s:o, s:I, s:o, s:o, s:o, s:o, s:I, s:b, s:s?, s:o}",
                     "_class_name", "UNet2DConditionModel", "sample_size", is_second(c) ? 96 : 64,
                     "in_channels", (json_int_t)u->in_channels, "out_channels",
                     (json_int_t)u->out_channels, "block_out_channels",
                     numbers(u->channels, u->n_levels), "layers_per_block", (json_int_t)u->layers,
                     "down_block_types", block_types(u, 0), "up_block_types", block_types(u, 1),
                     "attention_head_dim", heads(u), "transformer_layers_per_block", depths(u),
                     "cross_attention_dim", (json_int_t)u->cross_dim, "use_linear_projection",
                     u->linear, "class_embed_type", u->class_inputs ? "projection" : NULL,
                     "projection_class_embeddings_input_dim", class_inputs);
}

static json_t *vae_config(const struct checkpoint *c)
{
    const struct checkpoint_vae *v = &c->vae;
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:f}", "_class_name",
                     "AutoencoderKL", "in_channels", (json_int_t)v->in_channels, "out_channels",
                     (json_int_t)v->out_channels, "latent_channels", (json_int_t)v->latent_channels,
                     "layers_per_block", (json_int_t)v->layers, "block_out_channels",
                     numbers(v->channels, v->n_levels), "down_block_types",
                     texts("DownEncoderBlock2D", v->n_levels), "up_block_types",
                     texts("UpDecoderBlock2D", v->n_levels), "scaling_factor", 0.18215);
}

static json_t *text_config(const struct checkpoint *c)
{
    const struct checkpoint_text *t = &c->text;
    const int64_t heads_of_64 = t->width / 64 ? t->width / 64 : 1;
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:s}", "model_type", "clip_text_model",
                     "vocab_size", (json_int_t)t->vocabulary, "hidden_size", (json_int_t)t->width,
                     "intermediate_size", (json_int_t)t->inner, "num_hidden_layers",
                     (json_int_t)t->layers, "num_attention_heads", (json_int_t)heads_of_64,
                     "max_position_embeddings", (json_int_t)t->tokens, "hidden_act",
                     t->openclip ? "gelu" : "quick_gelu");
}

static json_t *scheduler_config(const struct checkpoint *c)
{
    return json_pack("{s:s, s:f, s:f, s:s, s:b, s:i, s:s, s:b, s:b, s:i, s:s}", "_class_name",
                     "PNDMScheduler", "beta_start", 0.00085, "beta_end", 0.012, "beta_schedule",
                     "scaled_linear", "clip_sample", 0, "num_train_timesteps", 1000,
                     "prediction_type", is_second(c) ? "v_prediction" : "epsilon",
                     "set_alpha_to_one", 0, "skip_prk_steps", 1, "steps_offset", 1,
                     "timestep_spacing", "leading");
}

attn_status checkpoint_config(const struct checkpoint *c, enum model_part part, json_t **out,
                              attn_error *err)
{
    switch (part) {
    case PART_UNET:
        *out = unet_config(c);
        break;
    case PART_VAE:
        *out = vae_config(c);
        break;
    case PART_TEXT:
        *out = text_config(c);
        break;
    case PART_SCHEDULER:
        *out = scheduler_config(c);
        break;
    }
    return *out ? ATTN_OK
                : attn_fail(err, ATTN_NOMEM, "%s: out of memory", safetensors_path(c->file));
}
