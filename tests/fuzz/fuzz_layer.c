/* fuzz_layer.c: any bytes as a stored layer with the weights of its adapters: an error with a text,
 * or tensors whose every value can be read. */
#include "bytes_file.h"
#include "layer_file.h"

static double sum_values(const attn_tensor *t)
{
    double sum = 0;
    int64_t n = t->rank ? 1 : 0;
    for (uint32_t a = 0; a < t->rank; a++)
        n *= t->shape[a];
    for (int64_t i = 0; i < n; i++)
        sum += (double)((const float *)t->data)[i];
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ATTN_ERROR_ON(err, 256);
    struct bytes_file f = bytes_file_open(data, size);
    struct layer_file *file = NULL;
    if (layer_file_open(f.path, &file, &err) == ATTN_OK) {
        volatile double sum = sum_values(&file->hidden) + sum_values(&file->encoder) +
                              sum_values(&file->mask) + sum_values(&file->temb) +
                              sum_values(&file->expected);
        for (uint32_t i = 0; i < file->n_images; i++)
            sum = sum + sum_values(&file->images[i]);
        for (uint32_t i = 0; i < file->n_params; i++)
            sum = sum + sum_values(file->params[i].tensor);
        (void)layer_file_keys(file, "standard", 0);
        (void)layer_file_keys(file, "added_kv", 0);
        (void)layer_file_keys(file, "ip_adapter", 4);
        layer_file_close(file);
    } else if (!err_text[0]) {
        abort(); /* an error without a text */
    }
    bytes_file_close(&f);
    return 0;
}
