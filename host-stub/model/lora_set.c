#include "lora_set.h"

#include "adapter_file.h"
#include "attn_host.h"
#include "stored_number.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { PARTS = LORA_OTHER, LORA_MODULE = 256, LIST_BYTES = 3072 };

/* One module of one file. */
struct entry {
    enum lora_component component;
    char *module; /* folded */
    const safetensors_tensor *parts[PARTS];
    const safetensors_tensor *foreign; /* a part of a method that is not LoRA */
    float factor;
    int taken;
};

struct file {
    safetensors *tensors;
    struct entry *entries; /* by component, then module */
    size_t n;
    double scale, text_scale;
};

struct lora_set {
    struct file files[LORA_MOST_FILES];
    uint32_t n;
};

/* -- reading ----------------------------------------------------------------------------------- */

static int entry_order(const void *a, const void *b)
{
    const struct entry *x = a;
    const struct entry *y = b;
    return x->component != y->component ? (int)x->component - (int)y->component
                                        : strcmp(x->module, y->module);
}

/* One entry for each tensor, sorted, so that a module's stand together. */
static attn_status entries_fill(struct file *f, attn_error *err)
{
    const size_t count = safetensors_count(f->tensors);
    f->entries = calloc(count + 1, sizeof(*f->entries));
    for (size_t i = 0; f->entries && i < count; i++) {
        struct entry *e = &f->entries[i];
        const safetensors_tensor *t = safetensors_at(f->tensors, i);
        struct lora_key key;
        const int failed = lora_key_parse(t->name, &key);
        e->module = key.module;
        f->n++;
        if (failed) {
            return attn_fail(err, ATTN_NOMEM, "%s: no memory for its names",
                             safetensors_path(f->tensors));
        }
        e->component = key.component;
        e->factor = 1.0f;
        if (key.part == LORA_OTHER) {
            e->foreign = t;
        } else {
            e->parts[key.part] = t;
        }
    }
    if (!f->entries) {
        return attn_fail(err, ATTN_NOMEM, "%s: no memory for its names",
                         safetensors_path(f->tensors));
    }
    qsort(f->entries, f->n, sizeof(*f->entries), entry_order);
    return ATTN_OK;
}

static attn_status entry_merge(const struct file *f, struct entry *into, const struct entry *from,
                               attn_error *err)
{
    if (from->foreign) {
        into->foreign = from->foreign;
    }
    for (int p = 0; p < PARTS; p++) {
        if (from->parts[p] && into->parts[p]) {
            return attn_fail(err, ATTN_INVALID, "%s: %s and %s are the same part of one module",
                             safetensors_path(f->tensors), into->parts[p]->name,
                             from->parts[p]->name);
        }
        into->parts[p] = from->parts[p] ? from->parts[p] : into->parts[p];
    }
    return ATTN_OK;
}

/* The parts of one module into one entry. */
static attn_status entries_join(struct file *f, attn_error *err)
{
    attn_status status = ATTN_OK;
    size_t kept = 0;
    for (size_t i = 0; i < f->n; i++) {
        struct entry *e = &f->entries[i];
        struct entry *last = kept ? &f->entries[kept - 1] : NULL;
        if (last && entry_order(last, e) == 0) {
            if (status == ATTN_OK) {
                status = entry_merge(f, last, e, err);
            }
            free(e->module);
        } else {
            f->entries[kept++] = *e;
        }
    }
    f->n = kept;
    return status;
}

/* A single number of any type that trainers write. */
static int number_read(const safetensors_tensor *t, double *value)
{
    const safetensors_dtype d = t->dtype;
    uint64_t raw = 0;
    if (t->bytes != d.bits / 8u || d.bits < 16 || d.bits > 64) {
        return -1;
    }
    if (stored_is_float(t)) {
        *value = (double)stored_number(t, 0);
    } else if (d.code == ATTN_CODE_INT) {
        memcpy(&raw, t->data, t->bytes);
        *value = (double)((int64_t)(raw << (64 - d.bits)) >> (64 - d.bits));
    } else {
        return -1;
    }
    return isfinite(*value) ? 0 : -1;
}

static int is_float(const safetensors_tensor *t)
{
    return stored_is_float(t) && t->dtype.bits <= 32;
}

/* [r, ...] and [out, r], or [out, r, 1, 1]. */
static attn_status pair_check(const char *path, const struct entry *e, attn_error *err)
{
    const safetensors_tensor *down = e->parts[LORA_DOWN];
    const safetensors_tensor *up = e->parts[LORA_UP];
    const safetensors_tensor *both[] = {down, up};
    for (int i = 0; i < 2; i++) {
        const safetensors_tensor *t = both[i];
        if (!is_float(t)) {
            return attn_fail(err, ATTN_INVALID,
                             "%s: %s has elements of %s, expected F32, F16 or"
                             " BF16",
                             path, t->name, safetensors_dtype_name(t->dtype));
        }
        if ((t->rank != 2 && t->rank != 4) || t->shape[0] < 1 || t->shape[1] < 1) {
            return attn_fail(err, ATTN_INVALID,
                             "%s: %s has rank %" PRIu32 " or an empty side,"
                             " expected a matrix or the weight of a convolution",
                             path, t->name, t->rank);
        }
    }
    if (up->rank == 4 && (up->shape[2] != 1 || up->shape[3] != 1)) {
        return attn_fail(err, ATTN_INVALID,
                         "%s: %s is a convolution of %" PRId64 " x %" PRId64 ", expected 1 x 1",
                         path, up->name, up->shape[2], up->shape[3]);
    }
    if (up->shape[1] != down->shape[0]) {
        return attn_fail(err, ATTN_INVALID,
                         "%s: %s is of rank %" PRId64 ", but %s of rank %" PRId64, path, down->name,
                         down->shape[0], up->name, up->shape[1]);
    }
    return ATTN_OK;
}

static attn_status entry_check(const char *path, struct entry *e, attn_error *err)
{
    const safetensors_tensor *down = e->parts[LORA_DOWN];
    const safetensors_tensor *up = e->parts[LORA_UP];
    const safetensors_tensor *alpha = e->parts[LORA_ALPHA];
    double value;
    attn_status status;
    if (e->foreign) {
        return ATTN_OK; /* told as unknown */
    }
    if (!down || !up) {
        const safetensors_tensor *alone = down ? down : up ? up : alpha;
        return attn_fail(err, ATTN_INVALID, "%s: %s is there without %s of its module", path,
                         alone->name,
                         down ? "the up weight"
                         : up ? "the down weight"
                              : "the down and up weights");
    }
    status = pair_check(path, e, err);
    if (status == ATTN_OK && alpha) {
        if (number_read(alpha, &value) != 0) {
            return attn_fail(err, ATTN_INVALID, "%s: %s is not a single finite number", path,
                             alpha->name);
        }
        e->factor = (float)(value / (double)down->shape[0]);
    }
    return status;
}

static attn_status file_open(struct file *f, const struct lora_choice *choice, attn_error *err)
{
    attn_status status;
    if (!isfinite(choice->scale) || !isfinite(choice->text_scale)) {
        return attn_fail(err, ATTN_INVALID,
                         "%s: its scale is %g, %g for the text encoder, expected"
                         " finite numbers",
                         choice->file, choice->scale, choice->text_scale);
    }
    f->scale = choice->scale;
    f->text_scale = choice->text_scale;
    status = adapter_open(choice->file, "pytorch_lora_weights.safetensors", &f->tensors, err);
    if (status == ATTN_OK) {
        status = entries_fill(f, err);
    }
    if (status == ATTN_OK) {
        status = entries_join(f, err);
    }
    for (size_t i = 0; i < f->n && status == ATTN_OK; i++) {
        status = entry_check(safetensors_path(f->tensors), &f->entries[i], err);
    }
    return status;
}

attn_status lora_set_open(const struct lora_choice *choices, uint32_t n, struct lora_set **out,
                          attn_error *err)
{
    attn_status status = ATTN_OK;
    struct lora_set *set;
    *out = NULL;
    if (n > LORA_MOST_FILES) {
        return attn_fail(err, ATTN_UNSUPPORTED, "%u LoRA files: expected at most %d", n,
                         LORA_MOST_FILES);
    }
    set = calloc(1, sizeof(*set));
    if (!set) {
        return attn_fail(err, ATTN_NOMEM, "no memory for %u LoRA files", n);
    }
    for (uint32_t i = 0; i < n && status == ATTN_OK; i++) {
        set->n++;
        status = choices[i].file
                     ? file_open(&set->files[i], &choices[i], err)
                     : attn_fail(err, ATTN_INVALID, "LoRA %u of %u: no file given", i + 1, n);
    }
    if (status != ATTN_OK) {
        lora_set_close(set);
        return status;
    }
    *out = set;
    return ATTN_OK;
}

void lora_set_close(struct lora_set *set)
{
    if (!set) {
        return;
    }
    for (uint32_t i = 0; i < set->n; i++) {
        struct file *f = &set->files[i];
        for (size_t k = 0; k < f->n; k++) {
            free(f->entries[k].module);
        }
        free(f->entries);
        safetensors_close(f->tensors);
    }
    free(set);
}

/* -- questions --------------------------------------------------------------------------------- */

uint32_t lora_set_count(const struct lora_set *set)
{
    return set ? set->n : 0;
}

const char *lora_set_path(const struct lora_set *set, uint32_t file)
{
    return safetensors_path(set->files[file].tensors);
}

/* NULL where the file has nothing for that module. */
static struct entry *entry_find(const struct file *f, enum lora_component component, char *module)
{
    const struct entry key = {.component = component, .module = module};
    return f->n ? bsearch(&key, f->entries, f->n, sizeof(*f->entries), entry_order) : NULL;
}

int lora_set_take(struct lora_set *set, uint32_t file, enum lora_component component,
                  const char *module, struct lora_pair *pair)
{
    char folded[LORA_MODULE];
    struct entry *e;
    (void)snprintf(folded, sizeof(folded), "%s", module);
    e = entry_find(&set->files[file], component, lora_fold(folded));
    if (!e || e->foreign) {
        return 0;
    }
    e->taken = 1;
    *pair = (struct lora_pair){e->parts[LORA_DOWN], e->parts[LORA_UP], e->factor};
    return 1;
}

/* The width of the prompt embeddings that a file was made for, 0 where it does not tell: what the
 * UNet's keys and values are made of, and what the text encoder is made of. */
static int64_t file_width(const struct file *f)
{
    static const char *const ends[] = {"attn2_to_k", "attn2_to_v", "self_attn_q_proj",
                                       "self_attn_k_proj", "self_attn_v_proj"};
    for (size_t i = 0; i < f->n; i++) {
        const struct entry *e = &f->entries[i];
        const size_t n = strlen(e->module);
        for (size_t k = 0; k < sizeof(ends) / sizeof(*ends) && !e->foreign; k++) {
            const size_t m = strlen(ends[k]);
            if (n > m && strcmp(e->module + n - m, ends[k]) == 0) {
                return e->parts[LORA_DOWN]->shape[1];
            }
        }
    }
    return 0;
}

attn_status lora_set_family(const struct lora_set *set, int64_t width, attn_error *err)
{
    const char *ours = family_of_width(width);
    for (uint32_t i = 0; i < lora_set_count(set); i++) {
        const struct file *f = &set->files[i];
        const int64_t theirs = file_width(f);
        for (size_t k = 0; k < safetensors_count(f->tensors); k++) {
            const char *name = safetensors_at(f->tensors, k)->name;
            const char *family = lora_key_family(name);
            if (family) {
                return attn_fail(err, ATTN_UNSUPPORTED,
                                 "%s: a LoRA for %s (it has %s), but this model is %s",
                                 lora_set_path(set, i), family, name,
                                 ours ? ours : "Stable Diffusion 1.x or 2.x");
            }
        }
        if (theirs && theirs != width) {
            return family_refuse(lora_set_path(set, i), theirs, width, err);
        }
    }
    return ATTN_OK;
}

/* -- what nobody took -------------------------------------------------------------------------- */

struct list {
    char text[LIST_BYTES];
    size_t used, listed, count;
};

static void list_add(struct list *l, const char *name)
{
    const size_t n = strlen(name) + 2;
    if (l->listed == l->count && l->used + n < sizeof(l->text)) {
        l->used += (size_t)snprintf(l->text + l->used, sizeof(l->text) - l->used, "%s%s",
                                    l->count ? ", " : "", name);
        l->listed++;
    }
    l->count++;
}

static attn_status list_file(struct list *l, const struct file *f, uint32_t flags, attn_error *err)
{
    for (size_t i = 0; i < safetensors_count(f->tensors); i++) {
        const char *name = safetensors_at(f->tensors, i)->name;
        struct lora_key key;
        if (lora_key_parse(name, &key) != 0) {
            return attn_fail(err, ATTN_NOMEM, "%s: no memory for its names",
                             safetensors_path(f->tensors));
        }
        const int passed = key.component == LORA_UNET && flags & LORA_TEXT_ALONE;
        if (!passed && !entry_find(f, key.component, key.module)->taken) {
            list_add(l, name);
        }
        free(key.module);
    }
    return ATTN_OK;
}

/* Why, where the names tell. */
static const char *reason(const struct list *l)
{
    static const struct {
        const char *word, *text;
    } known[] = {
        {".hada_", " (LoHa is not supported)"},
        {".lokr_", " (LoKr is not supported)"},
        {".dora_scale", " (DoRA is not supported)"},
        {".lora_mid", " (LoCon in three parts is not supported)"},
        {".diff", " (full differences of weights are not supported)"},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
        if (strstr(l->text, known[i].word)) {
            return known[i].text;
        }
    }
    return "";
}

attn_status lora_set_done(const struct lora_set *set, uint32_t flags,
                          void (*log)(void *ctx, int32_t level, const char *text), void *log_ctx,
                          attn_error *err)
{
    for (uint32_t i = 0; i < lora_set_count(set); i++) {
        struct list l = {.count = 0};
        char more[32] = "";
        char text[LIST_BYTES + 512];
        const attn_status status = list_file(&l, &set->files[i], flags, err);
        if (status != ATTN_OK) {
            return status;
        }
        if (l.count == 0) {
            continue;
        }
        if (l.listed < l.count) {
            (void)snprintf(more, sizeof(more), " and %zu more", l.count - l.listed);
        }
        (void)snprintf(text, sizeof(text),
                       "%s: %zu of its %zu tensors fit nothing in this model%s: %s%s",
                       lora_set_path(set, i), l.count, safetensors_count(set->files[i].tensors),
                       reason(&l), l.text, more);
        if (!(flags & LORA_IGNORE)) {
            return attn_fail(err, ATTN_INVALID, "%s", text);
        }
        if (log) {
            log(log_ctx, 1, text);
        }
    }
    return ATTN_OK;
}

void lora_set_scales(const struct lora_set *set, enum lora_component component, double scale,
                     float scales[LORA_MOST_FILES])
{
    for (uint32_t i = 0; i < lora_set_count(set); i++) {
        const struct file *f = &set->files[i];
        scales[i] = (float)(scale * (component == LORA_UNET ? f->scale : f->text_scale));
    }
}
