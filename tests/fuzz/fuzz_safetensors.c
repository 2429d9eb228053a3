/* fuzz_safetensors.c: any bytes as a .safetensors file: an error, or tensors whose every byte can
 * be read. */
#include "bytes_file.h"
#include "safetensors.h"

#include <string.h>

static uint64_t sum_bytes(const safetensors_tensor *t)
{
    uint64_t sum = 0;
    for (uint64_t i = 0; i < t->bytes; i++)
        sum += ((const uint8_t *)t->data)[i];
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ATTN_ERROR_ON(err, 256);
    struct bytes_file f = bytes_file_open(data, size);
    safetensors *file = NULL;
    attn_status s = safetensors_open(f.path, &file, &err);
    volatile uint64_t sum = 0; /* so that reading is not optimised away */
    if (s == ATTN_OK) {
        for (size_t i = 0; i < safetensors_count(file); i++) {
            const safetensors_tensor *t = safetensors_at(file, i);
            if (safetensors_find(file, t->name) != t || !safetensors_dtype_name(t->dtype))
                abort();
            sum = sum + sum_bytes(t);
            safetensors_let_go(file, t->data, t->bytes); /* read anew when it is wanted again */
            sum = sum + sum_bytes(t);
        }
        if (strcmp(safetensors_path(file), f.path) != 0)
            abort();
        (void)safetensors_metadata(file, "config");
    } else if (!err_text[0]) {
        abort(); /* an error without a text */
    }
    safetensors_close(file);
    bytes_file_close(&f);
    return 0;
}
