#include "weights_private.h"

#include "attn_host.h"
#include "tensor.h"
#include "tensor_set.h"

#include <stdlib.h>
#include <string.h>

/* What was made and is to be undone. */
enum item_kind { ITEM_MEMORY, ITEM_TENSOR, ITEM_CONV, ITEM_LAYER };

struct item {
    enum item_kind kind;
    union {
        void *memory;
        attn_tensor tensor;
        struct conv *conv;
        struct layer *layer;
    } of;
};

/* -- failing --------------------------------------------------------------------------------- */

attn_status weights_status(const struct weights *w)
{
    return w->status;
}

void weights_fail(struct weights *w, attn_status status, const char *format, ...)
{
    va_list args;
    if (w->status != ATTN_OK) {
        return;
    }
    w->status = status;
    if (w->err && w->err->text && w->err->capacity) {
        va_start(args, format);
        (void)vsnprintf(w->err->text, w->err->capacity, format, args);
        va_end(args);
    }
}

void weights_fail_as(struct weights *w, attn_status status)
{
    w->status = w->status != ATTN_OK ? w->status : status;
}

static void no_memory(struct weights *w)
{
    weights_fail(w, ATTN_NOMEM, "%s: out of memory", tensor_set_path(w->tensors));
}

/* -- what was made --------------------------------------------------------------------------- */

/* Room for one more, before the thing is made: so nothing made can be lost. */
static struct item *item_reserve(struct weights *w, enum item_kind kind)
{
    if (w->status != ATTN_OK) {
        return NULL;
    }
    if (w->n_items == w->capacity) {
        size_t capacity = w->capacity ? 2 * w->capacity : 64;
        struct item *items = realloc(w->items, capacity * sizeof(*items));
        if (!items) {
            no_memory(w);
            return NULL;
        }
        w->items = items;
        w->capacity = capacity;
    }
    memset(&w->items[w->n_items], 0, sizeof(*w->items));
    w->items[w->n_items].kind = kind;
    return &w->items[w->n_items];
}

static void item_undo(struct weights *w, struct item *item)
{
    switch (item->kind) {
    case ITEM_MEMORY:
        free(item->of.memory);
        break;
    case ITEM_TENSOR:
        w->compute->api->unload(w->compute, &item->of.tensor);
        break;
    case ITEM_CONV:
        w->compute->api->conv_destroy(w->compute, item->of.conv);
        break;
    case ITEM_LAYER:
        layer_unbind(item->of.layer);
        break;
    }
}

void *weights_alloc(struct weights *w, size_t count, size_t size)
{
    struct item *item = item_reserve(w, ITEM_MEMORY);
    if (!item) {
        return NULL;
    }
    item->of.memory = calloc(count ? count : 1, size);
    if (!item->of.memory) {
        no_memory(w);
        return NULL;
    }
    w->n_items++;
    return item->of.memory;
}

const char *weights_name(struct weights *w, const char *format, ...)
{
    char *kept;
    FORMAT_NAME(name, format);
    kept = weights_alloc(w, strlen(name) + 1, 1);
    return kept ? memcpy(kept, name, strlen(name) + 1) : NULL;
}

/* -- opening and closing --------------------------------------------------------------------- */

attn_status weights_open(struct compute *c, const struct model_source *source, const char *base,
                         struct weights **out, attn_error *err)
{
    attn_status status;
    struct weights *w = calloc(1, sizeof(*w));
    if (!w) {
        return attn_fail(err, ATTN_NOMEM, "%s: out of memory", base);
    }
    w->compute = c;
    w->err = err;
    status = tensor_set_open(source, base, &w->tensors, err);
    if (status == ATTN_OK) {
        w->asked = calloc(tensor_set_count(w->tensors) + 1, 1);
        if (!w->asked) {
            status = attn_fail(err, ATTN_NOMEM, "%s: out of memory", tensor_set_path(w->tensors));
        }
    }
    if (status != ATTN_OK) {
        weights_close(w);
        return status;
    }
    *out = w;
    return ATTN_OK;
}

void weights_close(struct weights *w)
{
    if (!w) {
        return;
    }
    while (w->n_items > 0) {
        item_undo(w, &w->items[--w->n_items]);
    }
    free(w->items);
    free(w->asked);
    tensor_set_close(w->tensors);
    free(w);
}

void weights_adapt(struct weights *w, struct lora_set *loras, enum lora_component component)
{
    w->loras = loras;
    w->component = component;
}

void weights_run_seldom(struct weights *w)
{
    w->seldom = true;
}

static int begins_with_one_of(const char *name, const char *const *known)
{
    for (; known && *known; known++) {
        if (strncmp(name, *known, strlen(*known)) == 0) {
            return 1;
        }
    }
    return 0;
}

/* One line, however many there are. */
static void log_unused(const struct weights *w, size_t count, const char *first)
{
    char text[2 * NAME_BYTES];
    const attn_host *host = &w->compute->host;
    if (!host->log || count == 0) {
        return;
    }
    (void)snprintf(text, sizeof(text), "%s: %zu tensor%s that this model has no use for: %s%s",
                   tensor_set_path(w->tensors), count, count == 1 ? "" : "s", first,
                   count == 1 ? "" : ", ...");
    host->log(host->ctx, 1, text);
}

attn_status weights_done(struct weights *w, const char *const *known)
{
    size_t count = 0;
    const char *first = "";
    for (size_t i = 0; w->status == ATTN_OK && i < tensor_set_count(w->tensors); i++) {
        const char *name = tensor_set_at(w->tensors, i)->name;
        if (!w->asked[i] && !begins_with_one_of(name, known)) {
            first = count == 0 ? name : first;
            count++;
        }
    }
    log_unused(w, count, first);
    w->err = NULL; /* the caller's, and only until here */
    return w->status;
}

/* The file's pages under a tensor that was converted would only stay beside its new form. */
static void let_go(const struct weights *w, const attn_tensor *host)
{
    tensor_set_let_go(w->tensors, host->data, tensor_bytes(host));
}

void weights_rest(const struct weights *w)
{
    tensor_set_rest(w->tensors);
}

/* -- their forms on the device --------------------------------------------------------------- */

/* Uploaded, in the element type `dtype` (NULL: the compute's). */
attn_tensor weights_upload(struct weights *w, const attn_tensor *host, const attn_tensor *dtype)
{
    const attn_tensor absent = {0};
    struct item *item = item_reserve(w, ITEM_TENSOR);
    if (!item) {
        return absent;
    }
    w->status = w->compute->api->upload(w->compute, host, dtype, &item->of.tensor, w->err);
    if (w->status != ATTN_OK) {
        return absent;
    }
    w->n_items++;
    if (item->of.tensor.data != host->data) {
        let_go(w, host);
    }
    return item->of.tensor;
}

/* <name><ending> in the compute's type. */
static attn_tensor device_tensor(struct weights *w, const char *name, const char *ending,
                                 uint32_t rank, const int64_t *shape)
{
    char whole[NAME_BYTES + 16];
    attn_tensor host;
    (void)snprintf(whole, sizeof(whole), "%s%s", name, ending);
    host = weights_file_tensor(w, whole, rank, shape);
    return weights_upload(w, &host, NULL);
}

/* The weight of a linear.  On a CPU a large one of halves stays as it lies in the file and is
 * widened whenever it is used, a tenth of what the product takes: in fp32 it would take twice the
 * memory, and could not be given back while others run. */
static attn_tensor linear_weight(struct weights *w, const char *name, uint32_t rank,
                                 const int64_t *shape)
{
    enum { LARGE = 1 << 18 };
    char whole[NAME_BYTES + 16];
    attn_tensor host;
    attn_tensor dtype = {.lanes = 1};
    (void)snprintf(whole, sizeof(whole), "%s.weight", name);
    host = weights_file_tensor(w, whole, rank, shape);
    dtype.code = host.code;
    dtype.bits = host.bits;
    if (w->compute->device.type == ATTN_DEVICE_CPU && shape[0] * shape[1] >= LARGE) {
        return weights_upload(w, &host, &dtype);
    }
    return weights_upload(w, &host, NULL);
}

attn_tensor weights_table(struct weights *w, uint32_t rank, const int64_t *shape,
                          const char *format, ...)
{
    const attn_tensor absent = {0};
    attn_tensor host;
    attn_tensor dtype = {.lanes = 1};
    FORMAT_NAME(name, format);
    host = weights_file_tensor(w, name, rank, shape);
    if (w->status != ATTN_OK) {
        return absent;
    }
    dtype.code = host.code;
    dtype.bits = host.bits;
    return weights_upload(w, &host, &dtype);
}

attn_tensor weights_tensor(struct weights *w, uint32_t rank, const int64_t *shape,
                           const char *format, ...)
{
    FORMAT_NAME(name, format);
    return device_tensor(w, name, "", rank, shape);
}

void weights_linear(struct weights *w, attn_linear *linear, int64_t out, int64_t in, int32_t bias,
                    const char *format, ...)
{
    const int64_t shape[] = {out, in};
    FORMAT_NAME(name, format);
    memset(linear, 0, sizeof(*linear));
    linear->weight = linear_weight(w, name, 2, shape);
    if (bias) {
        linear->bias = device_tensor(w, name, ".bias", 1, shape);
    }
    weights_lora_linear(w, linear, name);
}

void weights_pointwise(struct weights *w, attn_linear *linear, int64_t out, int64_t in,
                       const char *format, ...)
{
    const int64_t shape[] = {out, in, 1, 1};
    FORMAT_NAME(name, format);
    memset(linear, 0, sizeof(*linear));
    linear->weight = linear_weight(w, name, 4, shape);
    linear->weight.rank = linear->weight.rank ? 2 : 0;
    linear->bias = device_tensor(w, name, ".bias", 1, shape);
    weights_lora_linear(w, linear, name);
}

void weights_norm(struct weights *w, attn_norm *norm, uint32_t kind, int64_t channels,
                  int64_t groups, double eps, const char *format, ...)
{
    FORMAT_NAME(name, format);
    memset(norm, 0, sizeof(*norm));
    if (kind == ATTN_NORM_GROUP && (groups < 1 || channels % groups != 0)) {
        weights_fail(w, ATTN_INVALID, "%s: %s: %lld channels do not divide into %lld groups",
                     tensor_set_path(w->tensors), name, (long long)channels, (long long)groups);
    }
    norm->kind = kind;
    norm->groups = (uint32_t)groups;
    norm->eps = (float)eps;
    norm->weight = device_tensor(w, name, ".weight", 1, &channels);
    norm->bias = device_tensor(w, name, ".bias", 1, &channels);
}

static void conv_read(void *ctx, const attn_tensor *weight)
{
    let_go(ctx, weight);
}

struct conv *weights_conv(struct weights *w, const struct conv_desc *desc, const char *format, ...)
{
    const int64_t shape[] = {desc->out_channels, desc->in_channels, desc->kernel, desc->kernel};
    char whole[NAME_BYTES + 16];
    struct conv_desc d = *desc;
    attn_tensor weight;
    attn_tensor bias;
    struct item *item;
    FORMAT_NAME(name, format);
    (void)snprintf(whole, sizeof(whole), "%s.weight", name);
    weight = weights_file_tensor(w, whole, 4, shape);
    (void)snprintf(whole, sizeof(whole), "%s.bias", name);
    bias = weights_file_tensor(w, whole, 1, shape);
    weights_lora_conv(w, &d, name);
    item = item_reserve(w, ITEM_CONV);
    if (!item) {
        return NULL;
    }
    d.weight = &weight;
    d.bias = &bias;
    d.weight_read = conv_read;
    d.ctx = w;
    d.seldom = w->seldom;
    w->status = w->compute->api->conv_create(w->compute, &d, &item->of.conv, w->err);
    if (w->status != ATTN_OK) {
        return NULL;
    }
    w->n_items++;
    let_go(w, &weight);
    return item->of.conv;
}

struct conv *weights_conv_same(struct weights *w, int64_t in, int64_t out, int64_t kernel,
                               const char *format, ...)
{
    const struct conv_desc desc = {.in_channels = in,
                                   .out_channels = out,
                                   .kernel = kernel,
                                   .stride = 1,
                                   .pad_low = kernel / 2,
                                   .pad_high = kernel / 2};
    FORMAT_NAME(name, format);
    return weights_conv(w, &desc, "%s", name);
}

struct layer *weights_layer(struct weights *w, const attn_layer *layer, const attn_layer_spec *spec)
{
    struct item *item = item_reserve(w, ITEM_LAYER);
    if (!item) {
        return NULL;
    }
    w->status = layer_bind(w->compute, layer, spec, &item->of.layer, w->err);
    if (w->status != ATTN_OK) {
        return NULL;
    }
    w->n_items++;
    return item->of.layer;
}
