#include "broken.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void copy_file(const char *from, const char *to)
{
    char bytes[65536];
    size_t n;
    FILE *in = fopen(from, "rb");
    FILE *out = fopen(to, "wb");
    assert_non_null(in);
    assert_non_null(out);
    while ((n = fread(bytes, 1, sizeof(bytes), in)) > 0) {
        assert_int_equal(fwrite(bytes, 1, n, out), n);
    }
    fclose(in);
    assert_int_equal(fclose(out), 0);
}

struct broken broken_copy(const char *name, const char *part)
{
    const char *base = strcmp(part, "text_encoder") == 0 ? "model" : "diffusion_pytorch_model";
    const char *temp = getenv("TMPDIR");
    struct broken b;
    char from[640];
    char to[320];
    char model[512];
    model_folder(model, name, part);
    (void)snprintf(b.folder, sizeof(b.folder), "%s/attnplug-broken-XXXXXX", temp ? temp : "/tmp");
    assert_non_null(mkdtemp(b.folder));
    (void)snprintf(b.file, sizeof(b.file), "%s/%s.safetensors", b.folder, base);
    (void)snprintf(from, sizeof(from), "%s/%s.safetensors", model, base);
    copy_file(from, b.file);
    (void)snprintf(from, sizeof(from), "%s/config.json", model);
    (void)snprintf(to, sizeof(to), "%s/config.json", b.folder);
    copy_file(from, to);
    return b;
}

static void config_path(const struct broken *b, char path[320])
{
    (void)snprintf(path, 320, "%s/config.json", b->folder);
}

void broken_remove(struct broken *b)
{
    char path[320];
    config_path(b, path);
    (void)unlink(path);
    (void)unlink(b->file);
    (void)rmdir(b->folder);
}

void broken_write_config(const struct broken *b, const char *text)
{
    char path[320];
    FILE *file;
    config_path(b, path);
    file = fopen(path, "wb");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

void broken_set(const struct broken *b, const char *key, const char *json)
{
    char path[320];
    json_t *root;
    char *text;
    config_path(b, path);
    root = json_load_file(path, 0, NULL);
    assert_non_null(root);
    if (json) {
        json_t *value = json_loads(json, JSON_DECODE_ANY, NULL);
        assert_non_null(value);
        assert_int_equal(json_object_set_new(root, key, value), 0);
    } else {
        assert_int_equal(json_object_del(root, key), 0);
    }
    text = json_dumps(root, 0);
    assert_non_null(text);
    broken_write_config(b, text);
    free(text);
    json_decref(root);
}

/* 0: the tensor is left out. */
static int change_one(safetensors_tensor *t, enum change change, const char *new_name)
{
    switch (change) {
    case CHANGE_DROP:
        return 0;
    case CHANGE_SHAPE:
        t->shape[t->rank - 1]++;
        break;
    case CHANGE_DTYPE:
        t->dtype = (safetensors_dtype){0, 64};
        break;
    case CHANGE_NAME:
        t->name = new_name;
        break;
    }
    return 1;
}

/* The tensors of a file, to be changed and written back. */
struct rewrite {
    safetensors *file;
    safetensors_tensor *tensors;
    size_t n;
};

static struct rewrite rewrite_begin(const struct broken *b)
{
    ATTN_ERROR_ON(err, 512);
    struct rewrite r = {0};
    assert_int_equal(safetensors_open(b->file, &r.file, &err), ATTN_OK);
    r.n = safetensors_count(r.file);
    r.tensors = calloc(r.n, sizeof(*r.tensors));
    assert_non_null(r.tensors);
    for (size_t i = 0; i < r.n; i++) {
        r.tensors[i] = *safetensors_at(r.file, i);
    }
    return r;
}

static safetensors_tensor *rewrite_find(const struct rewrite *r, const char *name)
{
    for (size_t i = 0; i < r->n; i++) {
        if (strcmp(r->tensors[i].name, name) == 0) {
            return &r->tensors[i];
        }
    }
    fail_msg("no tensor %s", name);
    return NULL;
}

/* The old file stays mapped until the new one has taken its name. */
static void rewrite_end(struct rewrite *r, const struct broken *b)
{
    ATTN_ERROR_ON(err, 512);
    if (safetensors_write(b->file, r->tensors, r->n, NULL, 0, &err) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
    free(r->tensors);
    safetensors_close(r->file);
}

void broken_tensor(const struct broken *b, const char *name, enum change change)
{
    struct rewrite r = rewrite_begin(b);
    safetensors_tensor *t = rewrite_find(&r, name);
    void *larger = calloc(1, 1 << 20); /* every changed tensor fits */
    char new_name[256];
    assert_non_null(larger);
    (void)snprintf(new_name, sizeof(new_name), "%s.old", name);
    t->bytes = 0;
    t->data = larger;
    if (!change_one(t, change, new_name)) {
        *t = r.tensors[--r.n];
    }
    rewrite_end(&r, b);
    free(larger);
}

void broken_rename(const struct broken *b, const char *from, const char *to)
{
    struct rewrite r = rewrite_begin(b);
    char(*names)[256] = calloc(r.n, sizeof(*names));
    size_t n = 0;
    assert_non_null(names);
    for (size_t i = 0; i < r.n; i++) {
        const char *name = r.tensors[i].name;
        const char *at = strstr(name, from);
        if (at) {
            (void)snprintf(names[i], sizeof(*names), "%.*s%s%s", (int)(at - name), name, to,
                           at + strlen(from));
            r.tensors[i].name = names[i];
            n++;
        }
    }
    assert_true(n > 0);
    rewrite_end(&r, b);
    free(names);
}

void broken_widen(const struct broken *b, const char *name)
{
    struct rewrite r = rewrite_begin(b);
    safetensors_tensor *t = rewrite_find(&r, name);
    const size_t planes = (size_t)(t->shape[0] * t->shape[1]);
    const size_t element = t->dtype.bits / 8u;
    char *wide = calloc(planes * 25, element);
    assert_non_null(wide);
    assert_int_equal(t->shape[2], 3);
    for (size_t i = 0; i < planes * 9; i++) {
        const size_t to = i / 9 * 25 + (i % 9 / 3 + 1) * 5 + i % 3 + 1;
        memcpy(wide + to * element, (const char *)t->data + i * element, element);
    }
    t->shape[2] = t->shape[3] = 5;
    t->data = wide;
    t->bytes = 0;
    rewrite_end(&r, b);
    free(wide);
}

void broken_misalign(const struct broken *b)
{
    FILE *file = fopen(b->file, "rb");
    uint64_t header;
    char *bytes;
    long size;
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    size = ftell(file);
    bytes = malloc((size_t)size);
    assert_non_null(bytes);
    rewind(file);
    assert_int_equal(fread(bytes, 1, (size_t)size, file), size);
    fclose(file);
    memcpy(&header, bytes, sizeof(header));
    file = fopen(b->file, "wb");
    assert_non_null(file);
    header++; /* JSON may end with spaces */
    assert_int_equal(fwrite(&header, 1, 8, file), 8);
    assert_int_equal(fwrite(bytes + 8, 1, header - 1, file), header - 1);
    assert_int_equal(fputc(' ', file), ' ');
    assert_int_equal(fwrite(bytes + 7 + header, 1, (size_t)size - 7 - header, file),
                     (size_t)size - 7 - header);
    assert_int_equal(fclose(file), 0);
    free(bytes);
}
