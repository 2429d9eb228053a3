/* fuzz_index.c: any bytes as what a part's folder holds: an index of shards in each of its
 * spellings, a file of weights, or a pickle.  An error with a text, or tensors whose every byte can
 * be read.
 *
 * The first byte says as what; the rest is the file.  Beside it lies the shard one.safetensors. */
#include "bytes_file.h"
#include "tensor_set.h"

#include <string.h>

struct spelling {
    const char *file, *variant;
};
static const struct spelling spellings[] = {
    {"model.safetensors.index.json", NULL},
    {"model.safetensors.index.fp16.json", "fp16"},
    {"model.fp16.safetensors.index.json", "fp16"},
    {"model.safetensors.fp16.index.json", NULL}, /* fp16 is all there is */
    {"model.safetensors", NULL},
    {"model.fp16.safetensors", "fp16"},
    {"pytorch_model.bin", NULL},
    {"lone.safetensors", NULL}, /* by its path instead of its folder */
};
enum { SPELLINGS = sizeof spellings / sizeof *spellings };

static char folder[] = "/tmp/fuzz_index_XXXXXX";

static void path_make(char *path, size_t size, const char *file)
{
    if (snprintf(path, size, "%s/%s", folder, file) >= (int)size)
        abort();
}

static void file_write(const char *file, const void *data, size_t size)
{
    char path[96];
    path_make(path, sizeof path, file);
    FILE *f = fopen(path, "wb");
    if (!f || (size && fwrite(data, 1, size, f) != size) || fclose(f) != 0)
        abort();
}

static void file_remove(const char *file)
{
    char path[96];
    path_make(path, sizeof path, file);
    (void)remove(path);
}

static void folder_remove(void)
{
    file_remove("one.safetensors");
    (void)rmdir(folder);
}

static void folder_make(void)
{
    static const char header[] =
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
        "\"b\":{\"dtype\":\"F16\",\"shape\":[1,2],\"data_offsets\":[8,12]}}";
    uint8_t shard[8 + sizeof header - 1 + 12] = {sizeof header - 1};
    if (!mkdtemp(folder) || atexit(folder_remove) != 0)
        abort();
    memcpy(shard + 8, header, sizeof header - 1);
    file_write("one.safetensors", shard, sizeof shard);
}

static void tensors_read(const struct tensor_set *set)
{
    volatile uint64_t sum = 0; /* so that reading is not optimised away */
    for (size_t i = 0; i < tensor_set_count(set); i++) {
        const safetensors_tensor *t = tensor_set_at(set, i);
        size_t index;
        if (!tensor_set_find(set, t->name, &index) || index != i || !*tensor_set_file(set, i))
            abort();
        for (uint64_t k = 0; k < t->bytes; k++)
            sum = sum + ((const uint8_t *)t->data)[k];
        tensor_set_let_go(set, t->data, t->bytes);
    }
    tensor_set_rest(set);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ATTN_ERROR_ON(err, 512);
    if (!size)
        return 0;
    static int made;
    if (!made++)
        folder_make();

    const struct spelling *s = &spellings[data[0] % SPELLINGS];
    char path[96];
    path_make(path, sizeof path, s->file);
    const struct model_source source = {.folder = folder,
                                        .variant = s->variant,
                                        .file = data[0] % SPELLINGS == SPELLINGS - 1 ? path : NULL};
    file_write(s->file, data + 1, size - 1);
    (void)variant_is_there(folder, "fp16");
    struct tensor_set *set = NULL;
    if (tensor_set_open(&source, "model", &set, &err) == ATTN_OK) {
        if (strcmp(tensor_set_path(set), path) != 0)
            abort();
        tensors_read(set);
    } else if (!err_text[0]) {
        abort(); /* an error without a text */
    }
    tensor_set_close(set);
    file_remove(s->file);
    return 0;
}
