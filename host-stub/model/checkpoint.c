#include "checkpoint_private.h"

#include "attn_host.h"
#include "pickle.h"

#include <stdlib.h>
#include <string.h>

/* As diffusers counts: a file with fewer averaged tensors has no averaged UNet. */
enum { EMA_LEAST = 100 };

/* -- opening --------------------------------------------------------------------------------- */

static attn_status ema_check(const struct checkpoint *c, attn_error *err)
{
    size_t count = 0;
    for (size_t i = 0; c->ema && i < safetensors_count(c->file); i++) {
        count +=
            strncmp(safetensors_at(c->file, i)->name, CHECKPOINT_EMA, strlen(CHECKPOINT_EMA)) == 0;
    }
    return !c->ema || count > EMA_LEAST
               ? ATTN_OK
               : attn_fail(err, ATTN_NOT_FOUND,
                           "%s: averaged weights were asked for, but it has %zu tensors"
                           " " CHECKPOINT_EMA "*: it holds none",
                           safetensors_path(c->file), count);
}

attn_status checkpoint_open(const char *path, int32_t ema, struct checkpoint **out, attn_error *err)
{
    attn_status status;
    struct checkpoint *c;
    *out = NULL;
    if (pickle_is(path)) {
        return pickle_refuse(path, err);
    }
    c = calloc(1, sizeof(*c));
    if (!c) {
        return attn_fail(err, ATTN_NOMEM, "%s: out of memory", path);
    }
    c->ema = ema;
    status = safetensors_open(path, &c->file, err);
    if (status == ATTN_OK) {
        status = checkpoint_measure(c, err);
    }
    if (status == ATTN_OK) {
        status = ema_check(c, err);
    }
    if (status != ATTN_OK) {
        checkpoint_close(c);
        return status;
    }
    *out = c;
    return ATTN_OK;
}

void checkpoint_close(struct checkpoint *c)
{
    if (!c) {
        return;
    }
    safetensors_close(c->file);
    free(c);
}

const safetensors *checkpoint_file(const struct checkpoint *c)
{
    return c->file;
}

/* -- tensors --------------------------------------------------------------------------------- */

/* The averaged tensor of a UNet's: its name without "model." and without any dot. */
static attn_status averaged(const struct checkpoint *c, const safetensors_tensor *t,
                            const safetensors_tensor **out, attn_error *err)
{
    char name[CHECKPOINT_NAME + 16] = CHECKPOINT_EMA;
    size_t used = strlen(name);
    for (const char *at = t->name + strlen("model."); *at && used + 1 < sizeof(name); at++) {
        if (*at != '.') {
            name[used++] = *at;
        }
    }
    name[used] = 0;
    *out = safetensors_find(c->file, name);
    return *out ? ATTN_OK
                : attn_fail(err, ATTN_NOT_FOUND, "%s: no tensor %s", safetensors_path(c->file),
                            name);
}

static attn_status unet_take(const struct checkpoint *c, const safetensors_tensor *t,
                             checkpoint_take take, void *ctx, attn_error *err)
{
    char name[CHECKPOINT_NAME];
    attn_status status = ATTN_OK;
    unet_name(&c->unet, t->name + strlen(CHECKPOINT_UNET), name);
    if (c->ema) {
        status = averaged(c, t, &t, err);
    }
    return status == ATTN_OK ? take(ctx, name, t) : status;
}

/* Linears that were 1x1 convolutions lose the two dimensions of one. */
static attn_status vae_take(const struct checkpoint *c, const safetensors_tensor *t,
                            checkpoint_take take, void *ctx)
{
    char name[CHECKPOINT_NAME];
    safetensors_tensor view = *t;
    vae_name(&c->vae, t->name + strlen(CHECKPOINT_VAE), name);
    if (strstr(name, "attentions.") && view.rank == 4 && view.shape[2] == 1 && view.shape[3] == 1) {
        view.rank = 2;
    }
    return take(ctx, name, &view);
}

/* Query, key and value lie below each other in one tensor. */
static attn_status cut_take(const struct checkpoint *c, const safetensors_tensor *t,
                            const char *start, checkpoint_take take, void *ctx, attn_error *err)
{
    static const char *const parts[] = {"q_proj", "k_proj", "v_proj"};
    attn_status status = ATTN_OK;
    safetensors_tensor third = *t;
    if (t->rank < 1 || t->rank > 2 || t->shape[0] % 3 != 0) {
        return attn_fail(err, ATTN_INVALID,
                         "%s: %s has rank %u and %lld rows, expected query, key and value below"
                         " each other",
                         safetensors_path(c->file), t->name, t->rank,
                         t->rank ? (long long)t->shape[0] : 1);
    }
    third.shape[0] /= 3;
    third.bytes /= 3;
    for (int i = 0; i < 3 && status == ATTN_OK; i++) {
        char name[CHECKPOINT_NAME + 16];
        (void)snprintf(name, sizeof(name), "%s%s.%s", start, parts[i],
                       t->rank == 2 ? "weight" : "bias");
        third.data = (const uint8_t *)t->data + (size_t)i * third.bytes;
        status = take(ctx, name, &third);
    }
    return status;
}

/* A layer past those that the config has (checkpoint_shapes.c says why), by diffusers' name. */
static int is_left_out(const struct checkpoint *c, const char *name)
{
    static const char layers[] = "text_model.encoder.layers.";
    const size_t n = sizeof(layers) - 1;
    return strncmp(name, layers, n) == 0 && strtoll(name + n, NULL, 10) >= c->text.layers;
}

static attn_status text_take(const struct checkpoint *c, const safetensors_tensor *t,
                             checkpoint_take take, void *ctx, attn_error *err)
{
    char name[CHECKPOINT_NAME];
    int32_t cut;
    if (!c->text.openclip) {
        return take(ctx, t->name + strlen(CHECKPOINT_CLIP), t);
    }
    openclip_name(t->name + strlen(CHECKPOINT_OPEN), name, &cut);
    if (is_left_out(c, name)) {
        return ATTN_OK;
    }
    return cut ? cut_take(c, t, name, take, ctx, err) : take(ctx, name, t);
}

attn_status checkpoint_each(const struct checkpoint *c, enum model_part part, checkpoint_take take,
                            void *ctx, attn_error *err)
{
    const char *prefix = part == PART_UNET  ? CHECKPOINT_UNET
                         : part == PART_VAE ? CHECKPOINT_VAE
                         : c->text.openclip ? CHECKPOINT_OPEN
                                            : CHECKPOINT_CLIP;
    attn_status status = ATTN_OK;
    for (size_t i = 0; i < safetensors_count(c->file) && status == ATTN_OK; i++) {
        const safetensors_tensor *t = safetensors_at(c->file, i);
        if (strncmp(t->name, prefix, strlen(prefix)) != 0) {
            continue;
        }
        if (part == PART_UNET) {
            status = unet_take(c, t, take, ctx, err);
        } else if (part == PART_VAE) {
            status = vae_take(c, t, take, ctx);
        } else {
            status = text_take(c, t, take, ctx, err);
        }
    }
    return status;
}
