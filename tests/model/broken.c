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

struct broken broken_copy(const char *part)
{
    const char *base = strcmp(part, "text_encoder") == 0 ? "model" : "diffusion_pytorch_model";
    const char *temp = getenv("TMPDIR");
    struct broken b;
    char from[640];
    char to[320];
    char model[512];
    model_folder(model, "tiny-sd1", part);
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

void broken_tensor(const struct broken *b, const char *name, enum change change)
{
    ATTN_ERROR_ON(err, 512);
    safetensors *file = NULL;
    safetensors_tensor *tensors;
    void *larger;
    size_t n = 0;
    int found = 0;
    char new_name[256];
    (void)snprintf(new_name, sizeof(new_name), "%s.old", name);
    assert_int_equal(safetensors_open(b->file, &file, &err), ATTN_OK);
    tensors = calloc(safetensors_count(file), sizeof(*tensors));
    larger = calloc(1, 1 << 20); /* every changed tensor fits */
    assert_non_null(tensors);
    assert_non_null(larger);
    for (size_t i = 0; i < safetensors_count(file); i++) {
        tensors[n] = *safetensors_at(file, i);
        if (strcmp(tensors[n].name, name) == 0) {
            found = 1;
            if (!change_one(&tensors[n], change, new_name)) {
                continue;
            }
            tensors[n].bytes = 0;
            tensors[n].data = larger;
        }
        n++;
    }
    assert_true(found);
    /* the old file stays mapped: the new one takes its name */
    if (safetensors_write(b->file, tensors, n, NULL, 0, &err) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
    free(tensors);
    free(larger);
    safetensors_close(file);
}
