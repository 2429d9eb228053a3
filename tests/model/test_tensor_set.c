/* Which files a part of a model is read from: variants, shards and what may be wrong with them.
 * Each form of the same tensors has to give the same set, byte for byte. */
#include "broken.h"
#include "tensor_set.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const base = "diffusion_pytorch_model";

/* A part's folder whose one file the test takes apart. */
struct folder {
    struct broken b;
    safetensors *whole; /* of the stored model */
};

static struct folder folder_make(void)
{
    ATTN_ERROR_ON(err, 512);
    char path[600];
    char model[512];
    struct folder f = {.b = broken_copy("tiny-sd1", "vae")};
    model_folder(model, "tiny-sd1", "vae");
    (void)snprintf(path, sizeof(path), "%s/%s.safetensors", model, base);
    assert_int_equal(safetensors_open(path, &f.whole, &err), ATTN_OK);
    return f;
}

static const char *path_of(const struct folder *f, const char *name)
{
    static char path[600];
    (void)snprintf(path, sizeof(path), "%s/%s", f->b.folder, name);
    return path;
}

static void file_remove(const struct folder *f, const char *name)
{
    (void)unlink(path_of(f, name));
}

static void text_write(const struct folder *f, const char *name, const char *text)
{
    FILE *file = fopen(path_of(f, name), "wb");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void folder_remove(struct folder *f)
{
    static const char *const left[] = {"a.safetensors",
                                       "b.safetensors",
                                       "diffusion_pytorch_model.safetensors.index.json",
                                       "diffusion_pytorch_model.safetensors.index.fp16.json",
                                       "diffusion_pytorch_model.fp16.safetensors.index.json",
                                       "diffusion_pytorch_model.safetensors.fp16.index.json",
                                       "diffusion_pytorch_model.fp16.safetensors",
                                       "diffusion_pytorch_model.bin"};
    for (size_t i = 0; i < sizeof(left) / sizeof(*left); i++) {
        file_remove(f, left[i]);
    }
    safetensors_close(f->whole);
    broken_remove(&f->b);
}

/* The tensors from `begin` to `end` as a file of their own. */
static void shard_write(const struct folder *f, const char *name, size_t begin, size_t end)
{
    ATTN_ERROR_ON(err, 512);
    safetensors_tensor *tensors = calloc(end - begin, sizeof(*tensors));
    assert_non_null(tensors);
    for (size_t i = begin; i < end; i++) {
        tensors[i - begin] = *safetensors_at(f->whole, i);
    }
    if (safetensors_write(path_of(f, name), tensors, end - begin, NULL, 0, &err) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
    free(tensors);
}

/* An index that says of the first half of the tensors that they are in `a`, of the rest in `b`. */
static void index_write(const struct folder *f, const char *name, const char *a, const char *b)
{
    const size_t n = safetensors_count(f->whole);
    FILE *file = fopen(path_of(f, name), "wb");
    assert_non_null(file);
    (void)fputs("{\"metadata\": {\"total_size\": 1}, \"weight_map\": {", file);
    for (size_t i = 0; i < n; i++) {
        (void)fprintf(file, "%s\"%s\": \"%s\"", i ? ", " : "", safetensors_at(f->whole, i)->name,
                      i < n / 2 ? a : b);
    }
    (void)fputs("}}", file);
    assert_int_equal(fclose(file), 0);
}

static void shards_write(const struct folder *f)
{
    const size_t n = safetensors_count(f->whole);
    shard_write(f, "a.safetensors", 0, n / 2);
    shard_write(f, "b.safetensors", n / 2, n);
}

static void expect_whole(const struct folder *f, const char *variant, const char *file)
{
    ATTN_ERROR_ON(err, 512);
    const struct model_source source = {.folder = f->b.folder, .variant = variant};
    struct tensor_set *set = NULL;
    const size_t n = safetensors_count(f->whole);
    if (tensor_set_open(&source, base, &set, &err) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(tensor_set_count(set), n);
    assert_string_equal(tensor_set_path(set), path_of(f, file));
    for (size_t i = 0; i < n; i++) {
        const safetensors_tensor *expected = safetensors_at(f->whole, i);
        const safetensors_tensor *found = tensor_set_at(set, i);
        size_t index;
        assert_string_equal(found->name, expected->name);
        assert_true(tensor_set_find(set, expected->name, &index));
        assert_int_equal(index, i);
        assert_int_equal(found->bytes, expected->bytes);
        assert_memory_equal(found->data, expected->data, expected->bytes);
    }
    assert_false(tensor_set_find(set, "no.such.tensor", &(size_t){0}));
    tensor_set_close(set);
}

static void expect_refused(const struct folder *f, const char *variant, attn_status expected,
                           const char *named)
{
    ATTN_ERROR_ON(err, 1024);
    const struct model_source source = {.folder = f->b.folder, .variant = variant};
    struct tensor_set *set = NULL;
    const attn_status status = tensor_set_open(&source, base, &set, &err);
    if (status != expected || !strstr(err.text, named)) {
        fail_msg("status %d, expected %d and \"%s\": %s", status, expected, named, err.text);
    }
    assert_null(set);
    assert_null(strchr(err.text, '\n'));
}

static void one_file(void **state)
{
    struct folder f = folder_make();
    (void)state;
    expect_whole(&f, NULL, "diffusion_pytorch_model.safetensors");
    /* diffusers takes a part without that variant as it is */
    expect_whole(&f, "fp16", "diffusion_pytorch_model.safetensors");
    assert_false(variant_is_there(f.b.folder, "fp16"));
    folder_remove(&f);
}

static void variants(void **state)
{
    struct folder f = folder_make();
    (void)state;
    shard_write(&f, "diffusion_pytorch_model.fp16.safetensors", 0, safetensors_count(f.whole));
    assert_true(variant_is_there(f.b.folder, "fp16"));
    expect_whole(&f, NULL, "diffusion_pytorch_model.safetensors");
    expect_whole(&f, "fp16", "diffusion_pytorch_model.fp16.safetensors");
    expect_whole(&f, "other", "diffusion_pytorch_model.safetensors");
    file_remove(&f, "diffusion_pytorch_model.safetensors");
    expect_whole(&f, NULL, "diffusion_pytorch_model.fp16.safetensors");
    expect_refused(&f, "other", ATTN_NOT_FOUND, "diffusion_pytorch_model.safetensors: no such");
    folder_remove(&f);
}

static void sharded_files(void **state)
{
    static const char *const of_variant[] = {"diffusion_pytorch_model.safetensors.index.fp16.json",
                                             "diffusion_pytorch_model.fp16.safetensors.index.json",
                                             "diffusion_pytorch_model.safetensors.fp16.index.json"};
    struct folder f = folder_make();
    const char *plain = "diffusion_pytorch_model.safetensors.index.json";
    (void)state;
    shards_write(&f);
    index_write(&f, plain, "a.safetensors", "b.safetensors");
    expect_whole(&f, NULL, "diffusion_pytorch_model.safetensors");
    file_remove(&f, "diffusion_pytorch_model.safetensors");
    expect_whole(&f, NULL, plain);
    file_remove(&f, plain);
    for (size_t i = 0; i < 3; i++) {
        index_write(&f, of_variant[i], "a.safetensors", "b.safetensors");
        expect_whole(&f, "fp16", of_variant[i]);
        expect_whole(&f, NULL, of_variant[i]);
        file_remove(&f, of_variant[i]);
    }
    folder_remove(&f);
}

static void indexes_that_are_wrong(void **state)
{
    struct folder f = folder_make();
    const char *index = "diffusion_pytorch_model.safetensors.index.json";
    char outside[640];
    (void)state;
    shards_write(&f);
    file_remove(&f, "diffusion_pytorch_model.safetensors");
    index_write(&f, index, "a.safetensors", "missing.safetensors");
    expect_refused(&f, NULL, ATTN_NOT_FOUND, "missing.safetensors: no such file, which ");
    index_write(&f, index, "../a.safetensors", "b.safetensors");
    expect_refused(&f, NULL, ATTN_INVALID, "\"../a.safetensors\", expected the name of a file");
    (void)snprintf(outside, sizeof(outside), "%s/a.safetensors", f.b.folder);
    index_write(&f, index, outside, "b.safetensors");
    expect_refused(&f, NULL, ATTN_INVALID, "in the same folder");
    index_write(&f, index, "..", "b.safetensors");
    expect_refused(&f, NULL, ATTN_INVALID, "in the same folder");
    index_write(&f, index, "b.safetensors", "a.safetensors");
    expect_refused(&f, NULL, ATTN_INVALID, "which ");
    text_write(&f, index, "{\"weight_map\": {\"a\": \"a.safetensors\", \"a\": \"a.safetensors\"}}");
    expect_refused(&f, NULL, ATTN_INVALID, "duplicate");
    text_write(&f, index, "{\"weight_map\": {\"a\": 1}}");
    expect_refused(&f, NULL, ATTN_INVALID, "no text");
    text_write(&f, index, "{\"weight_map\": {}}");
    expect_refused(&f, NULL, ATTN_INVALID, "weight_map is missing or empty");
    text_write(&f, index, "{\"weight_map\": ");
    expect_refused(&f, NULL, ATTN_INVALID, index);
    index_write(&f, index, "a.safetensors", "b.safetensors");
    assert_int_equal(truncate(path_of(&f, "b.safetensors"), 300), 0);
    expect_refused(&f, NULL, ATTN_INVALID, "b.safetensors");
    folder_remove(&f);
}

static void pickles(void **state)
{
    struct folder f = folder_make();
    (void)state;
    file_remove(&f, "diffusion_pytorch_model.safetensors");
    text_write(&f, "diffusion_pytorch_model.bin", "PK\3\4");
    expect_refused(&f, NULL, ATTN_UNSUPPORTED, "torch.load");
    folder_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_file),      cmocka_unit_test(variants),
        cmocka_unit_test(sharded_files), cmocka_unit_test(indexes_that_are_wrong),
        cmocka_unit_test(pickles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
