#include "attention_config.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

/* -- arguments --------------------------------------------------------------------------------- */

enum argument { DIM, FLAG, NUMBER, NORM, IGNORED };

static const struct {
    const char *name;
    enum argument type;
    size_t at;
} arguments[] = {
#define AT(field) offsetof(struct attention_config, field)
    {"query_dim", DIM, AT(query_dim)},
    {"cross_attention_dim", DIM, AT(cross_attention_dim)},
    {"heads", DIM, AT(heads)},
    {"dim_head", DIM, AT(dim_head)},
    {"out_dim", DIM, AT(out_dim)},
    {"added_kv_proj_dim", DIM, AT(added_kv_proj_dim)},
    {"norm_num_groups", DIM, AT(norm_num_groups)},
    {"spatial_norm_dim", DIM, AT(spatial_norm_dim)},
    {"cross_attention_norm_num_groups", DIM, AT(cross_attention_norm_num_groups)},
    {"cross_attention_norm", NORM, AT(cross_attention_norm)},
    {"eps", NUMBER, AT(eps)},
    {"rescale_output_factor", NUMBER, AT(rescale_output_factor)},
    {"bias", FLAG, AT(bias)},
    {"out_bias", FLAG, AT(out_bias)},
    {"scale_qk", FLAG, AT(scale_qk)},
    {"upcast_attention", FLAG, AT(upcast_attention)},
    {"upcast_softmax", FLAG, AT(upcast_softmax)},
    {"only_cross_attention", FLAG, AT(only_cross_attention)},
    {"residual_connection", FLAG, AT(residual_connection)},
    {"dropout", IGNORED, 0},                     /* inference has none */
    {"_from_deprecated_attn_block", IGNORED, 0}, /* a matter of weights' names */
    {"processor", IGNORED, 0},                   /* named beside the configuration */
#undef AT
};

static attn_status argument_norm(const json_t *value, uint32_t *norm, attn_error *err)
{
    const char *text = json_string_value(value);
    if (text && strcmp(text, "layer_norm") == 0)
        *norm = ATTN_NORM_LAYER;
    else if (text && strcmp(text, "group_norm") == 0)
        *norm = ATTN_NORM_GROUP;
    else
        return attn_fail(err, ATTN_INVALID,
                         "config: cross_attention_norm is %s%s%s, expected null, \"layer_norm\" or "
                         "\"group_norm\"",
                         text ? "\"" : "", text ? text : "no text", text ? "\"" : "");
    return ATTN_OK;
}

static attn_status argument_read(const char *name, enum argument type, const json_t *value,
                                 void *field, attn_error *err)
{
    switch (type) {
    case DIM:
        if (!json_is_integer(value) || json_integer_value(value) < 1 ||
            json_integer_value(value) > INT32_MAX)
            return attn_fail(err, ATTN_INVALID, "config: %s is not a whole number from 1 to %d",
                             name, INT32_MAX);
        *(int64_t *)field = json_integer_value(value);
        return ATTN_OK;
    case FLAG:
        if (!json_is_boolean(value))
            return attn_fail(err, ATTN_INVALID, "config: %s is neither true nor false", name);
        *(int32_t *)field = json_is_true(value);
        return ATTN_OK;
    case NUMBER:
        if (!json_is_number(value) || !isfinite(json_number_value(value)))
            return attn_fail(err, ATTN_INVALID, "config: %s is not a finite number", name);
        *(double *)field = json_number_value(value);
        return ATTN_OK;
    case NORM:
        return argument_norm(value, field, err);
    case IGNORED:
        break;
    }
    return ATTN_OK;
}

static attn_status config_read(const json_t *root, struct attention_config *c, attn_error *err)
{
    const size_t n = sizeof arguments / sizeof *arguments;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)root, key, value)
    {
        size_t i = 0;
        while (i < n && strcmp(arguments[i].name, key) != 0)
            i++;
        if (i == n)
            return attn_fail(err, ATTN_INVALID, "config: Attention has no argument \"%s\"", key);
        if (json_is_null(value))
            continue;
        attn_status status =
            argument_read(key, arguments[i].type, value, (char *)c + arguments[i].at, err);
        if (status != ATTN_OK)
            return status;
    }
    return ATTN_OK;
}

/* out_dim is the width of the inner layer as well as of the result, and so gives the heads. */
static attn_status config_out_dim(struct attention_config *c, attn_error *err)
{
    if (c->out_dim && c->out_dim % c->dim_head != 0)
        return attn_fail(err, ATTN_INVALID,
                         "config: dim_head %" PRId64 " does not divide out_dim %" PRId64,
                         c->dim_head, c->out_dim);
    if (c->out_dim && c->out_dim != c->query_dim && c->residual_connection)
        return attn_fail(err, ATTN_INVALID,
                         "config: residual_connection with out_dim %" PRId64
                         " and query_dim %" PRId64,
                         c->out_dim, c->query_dim);
    if (c->out_dim)
        c->heads = c->out_dim / c->dim_head;
    else
        c->out_dim = c->query_dim;
    return ATTN_OK;
}

static attn_status config_check(const struct attention_config *c, attn_error *err)
{
    if (!c->query_dim)
        return attn_fail(err, ATTN_INVALID, "config: query_dim is missing");
    if (c->only_cross_attention && !c->added_kv_proj_dim)
        return attn_fail(err, ATTN_INVALID,
                         "config: only_cross_attention wants added_kv_proj_dim, which is None");
    if (c->norm_num_groups && c->query_dim % c->norm_num_groups != 0)
        return attn_fail(err, ATTN_INVALID,
                         "config: norm_num_groups %" PRId64 " does not divide query_dim %" PRId64,
                         c->norm_num_groups, c->query_dim);
    return ATTN_OK;
}

attn_status attention_config_parse(const char *json, struct attention_config *out, attn_error *err)
{
    json_error_t where;
    json_t *root = json_loads(json, JSON_REJECT_DUPLICATES, &where);
    attn_status status = ATTN_OK;
    if (!json_is_object(root)) {
        status =
            attn_fail(err, ATTN_INVALID, "config: %s", root ? "not a JSON object" : where.text);
        goto done;
    }
    *out = (struct attention_config){.heads = 8,
                                     .dim_head = 64,
                                     .cross_attention_norm_num_groups = 32,
                                     .eps = 1e-5,
                                     .rescale_output_factor = 1.0,
                                     .out_bias = 1,
                                     .scale_qk = 1};
    status = config_read(root, out, err);
    if (status == ATTN_OK)
        status = config_check(out, err);
    if (status == ATTN_OK)
        status = config_out_dim(out, err);
    if (!out->cross_attention_dim)
        out->cross_attention_dim = out->query_dim;
done:
    json_decref(root);
    return status;
}

/* -- weights ----------------------------------------------------------------------------------- */

/* One construction; the first failure stays. */
struct builder {
    const struct tensor_source *source;
    attn_error *err;
    attn_status status;
};

static attn_tensor builder_find(struct builder *b, const char *module, const char *part)
{
    char name[128];
    attn_tensor t = {0};
    (void)snprintf(name, sizeof name, "%s.%s", module, part);
    if (b->status == ATTN_OK)
        b->status = b->source->find(b->source->ctx, name, &t, b->err);
    return t;
}

static void builder_shape(struct builder *b, const char *module, const char *part,
                          const attn_tensor *t, int64_t rows, int64_t columns)
{
    uint32_t rank = columns ? 2 : 1;
    if (b->status != ATTN_OK)
        return;
    if (t->rank == 0)
        b->status = attn_fail(b->err, ATTN_INVALID, "%s.%s is missing", module, part);
    else if (t->rank != rank || t->shape[0] != rows || (columns && t->shape[1] != columns))
        b->status = attn_fail(b->err, ATTN_INVALID,
                              "%s.%s has rank %" PRIu32 " and shape [%" PRId64 ", %" PRId64
                              "], expected %s%" PRId64 ", %" PRId64 "]",
                              module, part, t->rank, t->shape[0], t->rank > 1 ? t->shape[1] : 1,
                              rank == 2 ? "[" : "rank 1 and [", rows, columns ? columns : 1);
}

static void builder_linear(struct builder *b, const char *module, attn_linear *l, int64_t out,
                           int64_t in, int32_t bias)
{
    l->weight = builder_find(b, module, "weight");
    builder_shape(b, module, "weight", &l->weight, out, in);
    l->bias = builder_find(b, module, "bias");
    if (bias)
        builder_shape(b, module, "bias", &l->bias, out, 0);
    else if (b->status == ATTN_OK && l->bias.rank)
        b->status = attn_fail(b->err, ATTN_INVALID,
                              "%s.bias is there, but the config says that there is none", module);
}

/* A 1x1 convolution [out, in, 1, 1] as a linear. */
static void builder_pointwise(struct builder *b, const char *module, attn_linear *l, int64_t out,
                              int64_t in)
{
    attn_tensor w = builder_find(b, module, "weight");
    if (w.rank == 4 && w.shape[2] == 1 && w.shape[3] == 1)
        w.rank = 2;
    builder_shape(b, module, "weight", &w, out, in);
    l->weight = w;
    l->bias = builder_find(b, module, "bias");
    builder_shape(b, module, "bias", &l->bias, out, 0);
}

static void builder_norm(struct builder *b, const char *module, attn_norm *n, uint32_t kind,
                         int64_t groups, double eps, int64_t channels)
{
    n->kind = kind;
    n->groups = (uint32_t)groups;
    n->eps = (float)eps;
    n->weight = builder_find(b, module, "weight");
    builder_shape(b, module, "weight", &n->weight, channels, 0);
    n->bias = builder_find(b, module, "bias");
    builder_shape(b, module, "bias", &n->bias, channels, 0);
}

/* SpatialNorm: 32 groups and eps 1e-6 whatever the arguments say. */
static void builder_spatial(struct builder *b, const struct attention_config *c, attn_norm *n)
{
    builder_norm(b, "spatial_norm.norm_layer", n, ATTN_NORM_SPATIAL, 32, 1e-6, c->query_dim);
    builder_pointwise(b, "spatial_norm.conv_y", &n->conv_y, c->query_dim, c->spatial_norm_dim);
    builder_pointwise(b, "spatial_norm.conv_b", &n->conv_b, c->query_dim, c->spatial_norm_dim);
}

static void builder_norm_cross(struct builder *b, const struct attention_config *c, attn_norm *n)
{
    int group = c->cross_attention_norm == ATTN_NORM_GROUP;
    int64_t channels =
        group && c->added_kv_proj_dim ? c->added_kv_proj_dim : c->cross_attention_dim;
    builder_norm(b, "norm_cross", n, c->cross_attention_norm,
                 group ? c->cross_attention_norm_num_groups : 0, 1e-5, channels);
}

static uint32_t layer_flags(const struct attention_config *c)
{
    uint32_t flags = 0;
    flags |= c->residual_connection ? ATTN_LAYER_RESIDUAL : 0;
    flags |= c->only_cross_attention ? ATTN_LAYER_ONLY_CROSS : 0;
    flags |= c->upcast_attention ? ATTN_LAYER_UPCAST_ATTENTION : 0;
    flags |= c->upcast_softmax ? ATTN_LAYER_UPCAST_SOFTMAX : 0;
    return flags;
}

attn_status attention_layer(const struct attention_config *c, const char *name,
                            const struct tensor_source *source, attn_layer *out, attn_error *err)
{
    struct builder b = {.source = source, .err = err};
    int64_t inner = c->heads * c->dim_head;
    *out = (attn_layer){.size = sizeof *out,
                        .flags = layer_flags(c),
                        .name = name,
                        .heads = c->heads,
                        .dim_head = c->dim_head,
                        .query_dim = c->query_dim,
                        .cross_dim = c->cross_attention_dim,
                        .scale = c->scale_qk ? (float)(1.0 / sqrt((double)c->dim_head)) : 1.0f,
                        .rescale = (float)c->rescale_output_factor};
    builder_linear(&b, "to_q", &out->to_q, inner, c->query_dim, c->bias);
    if (!c->only_cross_attention) {
        builder_linear(&b, "to_k", &out->to_k, inner, c->cross_attention_dim, c->bias);
        builder_linear(&b, "to_v", &out->to_v, inner, c->cross_attention_dim, c->bias);
    }
    if (c->added_kv_proj_dim) {
        builder_linear(&b, "add_k_proj", &out->add_k, inner, c->added_kv_proj_dim, 1);
        builder_linear(&b, "add_v_proj", &out->add_v, inner, c->added_kv_proj_dim, 1);
    }
    builder_linear(&b, "to_out.0", &out->to_out, c->out_dim, inner, c->out_bias);
    if (c->norm_num_groups)
        builder_norm(&b, "group_norm", &out->group_norm, ATTN_NORM_GROUP, c->norm_num_groups,
                     c->eps, c->query_dim);
    if (c->cross_attention_norm != ATTN_NORM_NONE)
        builder_norm_cross(&b, c, &out->norm_cross);
    if (c->spatial_norm_dim)
        builder_spatial(&b, c, &out->spatial_norm);
    return b.status;
}
