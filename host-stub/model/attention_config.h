/* attention_config.h: diffusers' Attention module from the arguments of its constructor and its
 * state dict (v0.26.3 src/diffusers/models/attention_processor.py), as an attn_layer. */
#ifndef ATTNPLUG_MODEL_ATTENTION_CONFIG_H
#define ATTNPLUG_MODEL_ATTENTION_CONFIG_H

#include "error.h"

/* The constructor's arguments under their own names; 0 stands for None in dimensions. */
struct attention_config {
    int64_t query_dim, cross_attention_dim, heads, dim_head, out_dim;
    int64_t added_kv_proj_dim, norm_num_groups, spatial_norm_dim;
    int64_t cross_attention_norm_num_groups;
    uint32_t cross_attention_norm; /* ATTN_NORM_NONE, _LAYER or _GROUP */
    double eps, rescale_output_factor;
    int32_t bias, out_bias, scale_qk;
    int32_t upcast_attention, upcast_softmax, only_cross_attention, residual_connection;
};

/* Reads a JSON object.  An argument that the constructor lacks, or a value that it would not take,
 * is INVALID and named. */
attn_status attention_config_parse(const char *json, struct attention_config *out, attn_error *err);

/* Where weights come from: *t has rank 0 where there is none of that name. */
struct tensor_source {
    attn_status (*find)(void *ctx, const char *name, attn_tensor *t, attn_error *err);
    void *ctx;
};

/* name is the layer's, borrowed.  INVALID names a weight that is missing, superfluous (a bias where
 * the arguments say none) or of the wrong shape. */
attn_status attention_layer(const struct attention_config *config, const char *name,
                            const struct tensor_source *source, attn_layer *out, attn_error *err);

#endif
