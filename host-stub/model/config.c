#include "config.h"

#include "attn_host.h"
#include "checkpoint.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct config {
    json_t *root;
    json_t *asked; /* the keys that getters were called with */
    char *path;
    attn_status status;
    attn_error *err;
};

/* Values in texts are cut: a config may hold anything. */
enum { VALUE_TEXT = 80 };

static void value_text(const json_t *value, char text[VALUE_TEXT])
{
    char *dump = value ? json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    const char *shown = dump ? dump : "not set";
    (void)snprintf(text, VALUE_TEXT, "%s", shown);
    if (strlen(shown) >= VALUE_TEXT) {
        memcpy(text + VALUE_TEXT - 4, "...", 4);
    }
    free(dump);
}

static void fail_value(struct config *c, attn_status status, const char *key, const json_t *value,
                       const char *expected)
{
    char text[VALUE_TEXT];
    if (c->status != ATTN_OK) {
        return;
    }
    value_text(value, text);
    c->status =
        attn_fail(c->err, status, "%s: %s is %s, expected %s", c->path, key, text, expected);
}

/* The value of a key, NULL where it is not set or something failed before. */
const json_t *config_value(struct config *c, const char *key)
{
    const json_t *value = json_object_get(c->root, key);
    if (json_object_set_new(c->asked, key, json_true()) != 0 && c->status == ATTN_OK) {
        c->status = attn_fail(c->err, ATTN_NOMEM, "%s: out of memory", c->path);
    }
    return c->status == ATTN_OK && value && !json_is_null(value) ? value : NULL;
}

static attn_status load(struct config *c, const char *folder)
{
    struct stat info;
    if (stat(folder, &info) != 0) {
        return attn_fail(c->err, ATTN_NOT_FOUND, "%s: %s, expected a model's folder", folder,
                         strerror(errno));
    }
    if (!S_ISDIR(info.st_mode)) {
        return attn_fail(c->err, ATTN_INVALID, "%s: not a folder", folder);
    }
    return json_file_read(c->path, &c->root, c->err);
}

/* An empty config of that path, which it takes. */
static attn_status make(char *path, const char *where, struct config **out, attn_error *err)
{
    struct config *c = calloc(1, sizeof(*c));
    if (c) {
        c->err = err;
        c->asked = json_object();
    }
    if (!c || !c->asked || !path) {
        config_close(c);
        free(path);
        return attn_fail(err, ATTN_NOMEM, "%s: out of memory", where);
    }
    c->path = path;
    *out = c;
    return ATTN_OK;
}

attn_status config_open(const char *folder, struct config **out, attn_error *err)
{
    struct config *c = NULL;
    char *path = NULL;
    attn_status status =
        make(asprintf(&path, "%s/config.json", folder) < 0 ? NULL : path, folder, &c, err);
    if (status == ATTN_OK) {
        status = load(c, folder);
    }
    if (status != ATTN_OK) {
        config_close(c);
        return status;
    }
    *out = c;
    return ATTN_OK;
}

attn_status config_open_source(const struct model_source *source, struct config **out,
                               attn_error *err)
{
    struct config *c = NULL;
    const char *path;
    attn_status status;
    if (!source->checkpoint) {
        return config_open(source->folder, out, err);
    }
    path = safetensors_path(checkpoint_file(source->checkpoint));
    status = make(strdup(path), path, &c, err);
    if (status == ATTN_OK) {
        status = checkpoint_config(source->checkpoint, source->part, &c->root, err);
    }
    if (status != ATTN_OK) {
        config_close(c);
        return status;
    }
    *out = c;
    return ATTN_OK;
}

attn_status config_open_json(json_t *root, const char *path, struct config **out, attn_error *err)
{
    struct config *c = NULL;
    attn_status status = make(strdup(path), path, &c, err);
    if (status != ATTN_OK) {
        return status;
    }
    c->root = json_incref(root);
    *out = c;
    return ATTN_OK;
}

void config_close(struct config *c)
{
    if (!c) {
        return;
    }
    json_decref(c->asked);
    json_decref(c->root);
    free(c->path);
    free(c);
}

static int in_range(const json_t *value, int64_t low, int64_t high)
{
    return json_is_integer(value) && json_integer_value(value) >= low &&
           json_integer_value(value) <= high;
}

static const char *range_text(char text[VALUE_TEXT], const char *what, int64_t low, int64_t high)
{
    (void)snprintf(text, VALUE_TEXT, "%s from %lld to %lld", what, (long long)low, (long long)high);
    return text;
}

int64_t config_int(struct config *c, const char *key, int64_t fallback, int64_t low, int64_t high)
{
    char expected[VALUE_TEXT];
    const json_t *value = config_value(c, key);
    if (!value) {
        return fallback;
    }
    if (!in_range(value, low, high)) {
        fail_value(c, ATTN_INVALID, key, value, range_text(expected, "a number", low, high));
        return fallback;
    }
    return json_integer_value(value);
}

double config_float(struct config *c, const char *key, double fallback)
{
    const json_t *value = config_value(c, key);
    if (!value) {
        return fallback;
    }
    if (!json_is_number(value) || !isfinite(json_number_value(value))) {
        fail_value(c, ATTN_INVALID, key, value, "a number");
        return fallback;
    }
    return json_number_value(value);
}

int32_t config_bool(struct config *c, const char *key, int32_t fallback)
{
    const json_t *value = config_value(c, key);
    if (!value) {
        return fallback;
    }
    if (!json_is_boolean(value)) {
        fail_value(c, ATTN_INVALID, key, value, "true or false");
        return fallback;
    }
    return json_is_true(value);
}

const char *config_text(struct config *c, const char *key, const char *fallback)
{
    const json_t *value = config_value(c, key);
    if (!value && fallback) {
        return fallback;
    }
    if (!value || !json_is_string(value)) {
        fail_value(c, ATTN_INVALID, key, value, "a text");
        return fallback ? fallback : "";
    }
    return json_string_value(value);
}

uint32_t config_ints(struct config *c, const char *key, int64_t low, int64_t high,
                     uint32_t capacity, int64_t *out)
{
    char expected[VALUE_TEXT];
    const json_t *value = config_value(c, key);
    size_t n = value ? json_array_size(value) : 0;
    if (n < 1 || n > capacity) {
        fail_value(c, ATTN_INVALID, key, value,
                   range_text(expected, "a list of length", 1, capacity));
        return 0;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(value, i);
        if (!in_range(item, low, high)) {
            fail_value(c, ATTN_INVALID, key, value, range_text(expected, "numbers", low, high));
            return 0;
        }
        out[i] = json_integer_value(item);
    }
    return (uint32_t)n;
}

/* Item i of a list of n, or the value that stands for all. */
static const json_t *each_item(struct config *c, const char *key, const json_t *value, uint32_t n,
                               uint32_t i)
{
    char expected[VALUE_TEXT];
    if (!json_is_array(value)) {
        return value;
    }
    if (json_array_size(value) != n) {
        (void)snprintf(expected, sizeof(expected), "one value or a list of %u", n);
        fail_value(c, ATTN_INVALID, key, value, expected);
        return NULL;
    }
    return json_array_get(value, i);
}

void config_ints_each(struct config *c, const char *key, int64_t fallback, int64_t low,
                      int64_t high, uint32_t n, int64_t *out)
{
    char expected[VALUE_TEXT];
    const json_t *value = config_value(c, key);
    for (uint32_t i = 0; i < n; i++) {
        const json_t *item = value ? each_item(c, key, value, n, i) : NULL;
        out[i] = fallback;
        if (item && in_range(item, low, high)) {
            out[i] = json_integer_value(item);
        } else if (value) {
            fail_value(c, ATTN_INVALID, key, value, range_text(expected, "numbers", low, high));
        }
    }
}

void config_bools_each(struct config *c, const char *key, int32_t fallback, uint32_t n,
                       int32_t *out)
{
    const json_t *value = config_value(c, key);
    for (uint32_t i = 0; i < n; i++) {
        const json_t *item = value ? each_item(c, key, value, n, i) : NULL;
        out[i] = item && json_is_boolean(item) ? json_is_true(item) : fallback;
        if (value && !(item && json_is_boolean(item))) {
            fail_value(c, ATTN_INVALID, key, value, "true or false");
        }
    }
}

void config_floats_each(struct config *c, const char *key, uint32_t n, double *out)
{
    const json_t *value = config_value(c, key);
    for (uint32_t i = 0; value && i < n; i++) {
        const json_t *item = each_item(c, key, value, n, i);
        if (!item || !json_is_number(item) || !isfinite(json_number_value(item))) {
            fail_value(c, ATTN_INVALID, key, value, "a number or a list of numbers");
            return;
        }
        out[i] = json_number_value(item);
    }
}

const char *config_text_at(struct config *c, const char *key, uint32_t n, uint32_t index)
{
    char expected[VALUE_TEXT];
    const json_t *value = config_value(c, key);
    const json_t *item = value ? json_array_get(value, index) : NULL;
    if (!value || json_array_size(value) != n || !json_is_string(item)) {
        (void)snprintf(expected, sizeof(expected), "a list of %u texts", n);
        fail_value(c, ATTN_INVALID, key, value, expected);
        return "";
    }
    return json_string_value(item);
}

/* 1 and 1.0 are the same setting. */
static int same_value(const json_t *a, const json_t *b)
{
    if (json_is_number(a) && json_is_number(b)) {
        return json_number_value(a) == json_number_value(b);
    }
    return json_equal(a, b);
}

void config_only(struct config *c, const char *key, const char *json)
{
    const json_t *value = config_value(c, key);
    json_t *allowed = json_loads(json, JSON_DECODE_ANY, NULL);
    char expected[VALUE_TEXT];
    if (value && !(allowed && same_value(value, allowed))) {
        (void)snprintf(expected, sizeof(expected), "%s: nothing else is supported", json);
        fail_value(c, ATTN_UNSUPPORTED, key, value, expected);
    }
    json_decref(allowed);
}

void config_refuse(struct config *c, attn_status status, const char *key, const char *expected)
{
    fail_value(c, status, key, json_object_get(c->root, key), expected);
}

static int is_ignored(const char *key, const char *const *ignored)
{
    if (key[0] == '_') {
        return 1;
    }
    for (; ignored && *ignored; ignored++) {
        if (strcmp(key, *ignored) == 0) {
            return 1;
        }
    }
    return 0;
}

static int is_set(const json_t *value)
{
    return !json_is_null(value) && !json_is_false(value) &&
           !(json_is_array(value) && json_array_size(value) == 0);
}

attn_status config_done(struct config *c, int32_t strict, const char *const *ignored)
{
    const char *key;
    json_t *value;
    if (!strict) {
        return c->status;
    }
    json_object_foreach(c->root, key, value)
    {
        if (is_set(value) && !json_object_get(c->asked, key) && !is_ignored(key, ignored)) {
            fail_value(c, ATTN_UNSUPPORTED, key, value, "not to be set: it is not known here");
        }
    }
    return c->status;
}
