#include "lora.h"

#include "error.h"
#include "params.h"
#include "tensor.h"

#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* How upstream's names and keyword arguments ("q_rank") call the linears. */
static const struct target {
    const char *name, *argument;
    size_t at;
} targets[] = {
    {"to_q", "q", offsetof(attn_layer, to_q)},
    {"to_k", "k", offsetof(attn_layer, to_k)},
    {"to_v", "v", offsetof(attn_layer, to_v)},
    {"to_out", "out", offsetof(attn_layer, to_out)},
    {"add_k_proj", NULL, offsetof(attn_layer, add_k)},
    {"add_v_proj", NULL, offsetof(attn_layer, add_v)},
};
_Static_assert(sizeof targets / sizeof *targets == LORA_TARGETS, "one name for each linear");

#define PAIR(name)                                                                                 \
    {"*" name "_lora.down.weight", ATTN_PARAM_TENSOR, 0, "[rank, in] of " name},                   \
        {"*" name "_lora.up.weight", ATTN_PARAM_TENSOR, 0, "[out, rank] of " name},                \
    {                                                                                              \
        "*" name "_lora.alpha", ATTN_PARAM_FLOAT, 0, "in place of network_alpha for " name         \
    }

static const attn_param_info lora_infos[] = {
    PAIR("to_q"),
    PAIR("to_k"),
    PAIR("to_v"),
    PAIR("to_out"),
    PAIR("add_k_proj"),
    PAIR("add_v_proj"),
    {"scale", ATTN_PARAM_FLOAT, 0, "of every adapter: 1; a call may give another"},
    {"*.scale", ATTN_PARAM_FLOAT, 0, "of one adapter, times scale: 1; a call may give another"},
    {"network_alpha", ATTN_PARAM_FLOAT, 0, "terms are weighed by network_alpha / rank; else by 1"},
    {"*.network_alpha", ATTN_PARAM_FLOAT, 0, "the same, of one adapter"},
    {"merged", ATTN_PARAM_INT, 0, "1: terms are added to copies of the weights at bind: 0"},
    {"rank", ATTN_PARAM_INT, 0, "of every term: checked"},
    {"q_rank", ATTN_PARAM_INT, 0, "of to_q's terms: checked"},
    {"k_rank", ATTN_PARAM_INT, 0, "of to_k's terms: checked"},
    {"v_rank", ATTN_PARAM_INT, 0, "of to_v's terms: checked"},
    {"out_rank", ATTN_PARAM_INT, 0, "of to_out's terms: checked"},
    {"hidden_size", ATTN_PARAM_INT, 0, "width of the layer's heads: checked"},
    {"q_hidden_size", ATTN_PARAM_INT, 0, "the same for to_q: checked"},
    {"k_hidden_size", ATTN_PARAM_INT, 0, "the same for to_k: checked"},
    {"v_hidden_size", ATTN_PARAM_INT, 0, "the same for to_v: checked"},
    {"out_hidden_size", ATTN_PARAM_INT, 0, "the same for to_out: checked"},
    {"cross_attention_dim", ATTN_PARAM_INT, 0, "channels of the encoder states: checked"},
};
const attn_param_list lora_params = {sizeof lora_params, sizeof lora_infos / sizeof *lora_infos,
                                     lora_infos};

/* -- reading ----------------------------------------------------------------------------------- */

struct reader {
    struct lora *l;
    const attn_param *params;
    uint32_t n;
    const char *who;
    attn_error *err;
    uint32_t n_terms;
};

attn_linear *lora_linear(attn_layer *layer, int target)
{
    return (attn_linear *)((char *)layer + targets[target].at);
}

/* The length of the adapter's name in "<adapter>.<target>_lora.<part>", or -1. */
static ptrdiff_t adapter_length(const char *name, const struct target *t, const char *part)
{
    char tail[64];
    size_t length = strlen(name);
    size_t tail_length = (size_t)snprintf(tail, sizeof tail, "%s_lora.%s", t->name, part);
    if (length < tail_length || strcmp(name + length - tail_length, tail) != 0)
        return -1;
    size_t head = length - tail_length;
    if (head == 0)
        return 0;
    return head > 1 && name[head - 1] == '.' ? (ptrdiff_t)head - 1 : -1;
}

static attn_status adapter_add(struct reader *r, const char *name, size_t length)
{
    struct lora *l = r->l;
    if (length >= LORA_NAME)
        return attn_fail(r->err, ATTN_INVALID, "%s: the adapter's name in \"%s\" is too long",
                         r->who, name);
    for (uint32_t i = 0; i < l->n_adapters; i++)
        if (strlen(l->adapters[i].name) == length && memcmp(l->adapters[i].name, name, length) == 0)
            return ATTN_OK;
    if (l->n_adapters == LORA_SLOTS)
        return attn_fail(r->err, ATTN_UNSUPPORTED, "%s: more than %d adapters", r->who, LORA_SLOTS);
    memcpy(l->adapters[l->n_adapters++].name, name, length);
    return ATTN_OK;
}

static attn_status read_adapters(struct reader *r)
{
    static const char *const parts[] = {"down.weight", "up.weight", "alpha"};
    for (uint32_t i = 0; i < r->n; i++) {
        const char *name = r->params[i].name;
        for (int t = 0; t < LORA_TARGETS; t++)
            for (int p = 0; p < 3; p++) {
                ptrdiff_t length = adapter_length(name, &targets[t], parts[p]);
                attn_status status = length < 0 ? ATTN_OK : adapter_add(r, name, (size_t)length);
                if (status != ATTN_OK)
                    return status;
            }
    }
    return ATTN_OK;
}

static void adapter_key(char *key, size_t bytes, const struct lora_adapter *a, const char *name)
{
    (void)snprintf(key, bytes, "%s%s%s", a->name, *a->name ? "." : "", name);
}

/* A parameter of one adapter. */
static const attn_param *adapter_param(const struct reader *r, const struct lora_adapter *a,
                                       const struct target *t, const char *part)
{
    char tail[64], key[LORA_NAME + 64];
    (void)snprintf(tail, sizeof tail, "%s_lora.%s", t->name, part);
    adapter_key(key, sizeof key, a, tail);
    return params_find(r->params, r->n, key);
}

static attn_status read_rank(const struct reader *r, const struct target *t, int64_t rank)
{
    int64_t expected = rank;
    char name[32];
    attn_status status =
        params_int(r->params, r->n, "rank", 1, INT32_MAX, &expected, r->who, r->err);
    if (status != ATTN_OK || !t->argument)
        goto compare;
    (void)snprintf(name, sizeof name, "%s_rank", t->argument);
    status = params_int(r->params, r->n, name, 1, INT32_MAX, &expected, r->who, r->err);
compare:
    if (status == ATTN_OK && rank != expected)
        status = attn_fail(r->err, ATTN_INVALID,
                           "%s: %s_lora.down.weight has rank %" PRId64
                           ", but the parameter says %" PRId64,
                           r->who, t->name, rank, expected);
    return status;
}

/* alpha / rank, from the closest of the three places where alpha may stand. */
static attn_status read_factor(const struct reader *r, const struct lora_adapter *a,
                               const struct target *t, int64_t rank, float *factor)
{
    char tail[64], own[LORA_NAME + 64], all[LORA_NAME + 64];
    double alpha = (double)rank;
    (void)snprintf(tail, sizeof tail, "%s_lora.alpha", t->name);
    adapter_key(own, sizeof own, a, tail);
    adapter_key(all, sizeof all, a, "network_alpha");
    const char *const names[] = {"network_alpha", all, own};
    attn_status status = ATTN_OK;
    for (int i = 0; i < 3 && status == ATTN_OK; i++)
        status = params_float(r->params, r->n, names[i], &alpha, r->who, r->err);
    *factor = (float)(alpha / (double)rank);
    return status;
}

static attn_status check_matrix(const struct reader *r, const struct lora_adapter *a,
                                const struct target *t, const char *part, const attn_tensor *m,
                                int64_t rows, int64_t columns)
{
    if (m->rank == 2 && m->shape[0] == rows && m->shape[1] == columns)
        return ATTN_OK;
    return attn_fail(r->err, ATTN_INVALID,
                     "%s: %s%s%s_lora.%s.weight has rank %" PRIu32 " and shape [%" PRId64
                     ", %" PRId64 "], expected [%" PRId64 ", %" PRId64 "]",
                     r->who, a->name, *a->name ? "." : "", t->name, part, m->rank, m->shape[0],
                     m->rank > 1 ? m->shape[1] : 1, rows, columns);
}

/* The term of one adapter on one linear, where there is one. */
static attn_status read_term(struct reader *r, uint32_t adapter, const struct target *t,
                             const attn_linear *linear)
{
    struct lora_adapter *a = &r->l->adapters[adapter];
    const attn_param *down = adapter_param(r, a, t, "down.weight");
    const attn_param *up = adapter_param(r, a, t, "up.weight");
    const char *dot = *a->name ? "." : "";
    if (!down && !up)
        return ATTN_OK;
    if (!down || !up)
        return attn_fail(r->err, ATTN_INVALID, "%s: %s%s%s_lora.%s.weight is missing", r->who,
                         a->name, dot, t->name, down ? "up" : "down");
    if (tensor_absent(&linear->weight))
        return attn_fail(r->err, ATTN_INVALID, "%s: %s%s%s_lora is given, but the layer has no %s",
                         r->who, a->name, dot, t->name, t->name);
    int64_t rank = down->tensor->rank == 2 ? down->tensor->shape[0] : 0;
    if (rank < 1)
        return attn_fail(r->err, ATTN_INVALID, "%s: %s%s%s_lora.down.weight is of rank 0", r->who,
                         a->name, dot, t->name);
    attn_term *term = &r->l->terms[r->n_terms];
    *term = (attn_term){
        .kind = ATTN_TERM_LOW_RANK, .slot = adapter, .down = *down->tensor, .up = *up->tensor};
    attn_status status = check_matrix(r, a, t, "down", down->tensor, rank, linear->weight.shape[1]);
    if (status == ATTN_OK)
        status = check_matrix(r, a, t, "up", up->tensor, linear->weight.shape[0], rank);
    if (status == ATTN_OK)
        status = read_rank(r, t, rank);
    if (status == ATTN_OK)
        status = read_factor(r, a, t, rank, &term->factor);
    r->n_terms += status == ATTN_OK;
    return status;
}

/* A layer with only_cross_attention has no to_k and to_v; upstream makes their LoRA all the same.
 */
static int target_skipped(const attn_layer *layer, const struct target *t)
{
    return layer->flags & ATTN_LAYER_ONLY_CROSS &&
           (t->at == offsetof(attn_layer, to_k) || t->at == offsetof(attn_layer, to_v));
}

static attn_status read_terms(struct reader *r)
{
    attn_layer *layer = &r->l->layer;
    const size_t room = (size_t)LORA_TARGETS * r->l->n_adapters + 1;
    r->l->terms = calloc(room, sizeof *r->l->terms);
    if (!r->l->terms)
        return attn_fail(r->err, ATTN_NOMEM, "%s: no memory for %zu low-rank terms", r->who, room);
    for (int t = 0; t < LORA_TARGETS; t++) {
        attn_linear *linear = lora_linear(layer, t);
        uint32_t first = r->n_terms;
        if (target_skipped(layer, &targets[t]))
            continue;
        for (uint32_t i = 0; i < r->l->n_adapters; i++) {
            attn_status status = read_term(r, i, &targets[t], linear);
            if (status != ATTN_OK)
                return status;
        }
        linear->terms = r->n_terms > first ? &r->l->terms[first] : NULL;
        linear->n_terms = r->n_terms - first;
    }
    return ATTN_OK;
}

/* "<adapter>.scale" and "<adapter>.network_alpha" of an adapter without weights. */
static attn_status check_adapters(const struct reader *r)
{
    static const char *const tails[] = {".scale", ".network_alpha"};
    for (uint32_t i = 0; i < r->n; i++)
        for (int t = 0; t < 2; t++) {
            const char *name = r->params[i].name;
            size_t length = strlen(name), tail = strlen(tails[t]);
            if (length <= tail || strcmp(name + length - tail, tails[t]) != 0)
                continue;
            uint32_t k = 0;
            while (k < r->l->n_adapters &&
                   (strlen(r->l->adapters[k].name) != length - tail ||
                    memcmp(r->l->adapters[k].name, name, length - tail) != 0))
                k++;
            if (k == r->l->n_adapters)
                return attn_fail(r->err, ATTN_INVALID,
                                 "%s: parameter \"%s\": there is no adapter of that name%s%s%s",
                                 r->who, name, k ? ", but \"" : "", k ? r->l->adapters[0].name : "",
                                 k ? "\"" : "");
        }
    return ATTN_OK;
}

/* A width that upstream's constructor wants and that the layer has anyway. */
static attn_status check_width(const struct reader *r, const char *name, int64_t expected)
{
    int64_t value = expected;
    attn_status status = params_int(r->params, r->n, name, 1, INT64_MAX, &value, r->who, r->err);
    if (status == ATTN_OK && value != expected)
        status = attn_fail(r->err, ATTN_INVALID,
                           "%s: parameter \"%s\" is %" PRId64 ", but the layer has %" PRId64,
                           r->who, name, value, expected);
    return status;
}

static attn_status read_scalars(const struct reader *r)
{
    static const char *const widths[] = {"hidden_size", "q_hidden_size", "k_hidden_size",
                                         "v_hidden_size", "out_hidden_size"};
    struct lora *l = r->l;
    const attn_layer *layer = &l->layer;
    attn_status status = ATTN_OK;
    l->scale = 1;
    for (size_t i = 0; i < sizeof widths / sizeof *widths && status == ATTN_OK; i++)
        status = check_width(r, widths[i], layer->heads * layer->dim_head);
    if (status == ATTN_OK)
        status = check_width(r, "cross_attention_dim",
                             tensor_absent(&layer->add_k.weight) ? layer->cross_dim
                                                                 : layer->add_k.weight.shape[1]);
    if (status == ATTN_OK)
        status = params_int(r->params, r->n, "merged", 0, 1, &l->merged, r->who, r->err);
    if (status == ATTN_OK)
        status = params_float(r->params, r->n, "scale", &l->scale, r->who, r->err);
    for (uint32_t i = 0; i < l->n_adapters && status == ATTN_OK; i++) {
        char key[LORA_NAME + 64];
        l->adapters[i].scale = 1;
        adapter_key(key, sizeof key, &l->adapters[i], "scale");
        if (*l->adapters[i].name)
            status = params_float(r->params, r->n, key, &l->adapters[i].scale, r->who, r->err);
    }
    return status;
}

attn_status lora_read(struct lora *l, const attn_layer *layer, const attn_param *params,
                      uint32_t n_params, const char *who, attn_error *err)
{
    struct reader r = {.l = l, .params = params, .n = n_params, .who = who, .err = err};
    memset(l, 0, sizeof *l);
    l->layer = *layer;
    for (int t = 0; t < LORA_TARGETS; t++)
        if (lora_linear(&l->layer, t)->n_terms)
            return attn_fail(err, ATTN_UNSUPPORTED,
                             "%s: %s has low-rank terms already; one place gives them all", who,
                             targets[t].name);
    attn_status status = read_adapters(&r);
    if (status == ATTN_OK)
        status = read_scalars(&r);
    if (status == ATTN_OK)
        status = check_adapters(&r);
    if (status == ATTN_OK)
        status = read_terms(&r);
    if (status != ATTN_OK)
        lora_free(l);
    return status;
}

void lora_free(struct lora *l)
{
    free(l->terms);
    l->terms = NULL;
}

/* -- scales of a call -------------------------------------------------------------------------- */

/* scales[n_adapters] */
static attn_status adapter_scales(const struct lora *l, const attn_param *params, uint32_t n_params,
                                  double *scales, const char *who, attn_error *err)
{
    double all = l->scale;
    attn_status status = params_float(params, n_params, "scale", &all, who, err);
    for (uint32_t i = 0; i < l->n_adapters && status == ATTN_OK; i++) {
        char key[LORA_NAME + 64];
        double own = l->adapters[i].scale;
        adapter_key(key, sizeof key, &l->adapters[i], "scale");
        if (*l->adapters[i].name)
            status = params_float(params, n_params, key, &own, who, err);
        scales[i] = all * own;
    }
    return status;
}

attn_status lora_scales(const struct lora *l, const attn_param *params, uint32_t n_params,
                        float *scales, const char *who, attn_error *err)
{
    double own[LORA_SLOTS];
    attn_status status = adapter_scales(l, params, n_params, own, who, err);
    for (uint32_t i = 0; i < l->n_adapters && status == ATTN_OK; i++)
        scales[i] = (float)own[i];
    return status;
}

attn_status lora_merged_check(const struct lora *l, const attn_param *params, uint32_t n_params,
                              const char *who, attn_error *err)
{
    double now[LORA_SLOTS], bound[LORA_SLOTS];
    attn_status status = adapter_scales(l, params, n_params, now, who, err);
    if (status == ATTN_OK)
        status = adapter_scales(l, NULL, 0, bound, who, err);
    for (uint32_t i = 0; i < l->n_adapters && status == ATTN_OK; i++)
        if (now[i] != bound[i])
            status = attn_fail(err, ATTN_INVALID,
                               "%s: LoRA \"%s\" was merged at scale %g; a call cannot change it to "
                               "%g",
                               who, l->adapters[i].name, bound[i], now[i]);
    return status;
}
