/* fuzz_checkpoint.c: any bytes as a checkpoint with original names: an error, or configurations and
 * tensors under diffusers' names whose every byte can be read. */
#include "bytes_file.h"
#include "checkpoint.h"
#include "tensor_set.h"

#include <string.h>

/* Every tensor of a part, in the order of their names. */
static void tensors_read(const struct checkpoint *c, enum model_part part)
{
    ATTN_ERROR_ON(err, 512);
    const struct model_source source = {.checkpoint = c, .part = part};
    struct tensor_set *set = NULL;
    volatile uint64_t sum = 0; /* so that reading is not optimised away */
    if (tensor_set_open(&source, "model", &set, &err) != ATTN_OK) {
        if (!err_text[0])
            abort(); /* an error without a text */
        return;
    }
    for (size_t i = 0; i < tensor_set_count(set); i++) {
        const safetensors_tensor *t = tensor_set_at(set, i);
        size_t index;
        if (!tensor_set_find(set, t->name, &index) || index != i)
            abort();
        for (uint64_t k = 0; k < t->bytes; k++)
            sum = sum + ((const uint8_t *)t->data)[k];
        tensor_set_let_go(set, t->data, t->bytes);
    }
    tensor_set_close(set);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ATTN_ERROR_ON(err, 512);
    struct bytes_file f = bytes_file_open(data, size);
    struct checkpoint *c = NULL;
    if (checkpoint_open(f.path, size % 2, &c, &err) == ATTN_OK) {
        for (int part = PART_UNET; part <= PART_SCHEDULER; part++) {
            json_t *config = NULL;
            if (checkpoint_config(c, (enum model_part)part, &config, &err) != ATTN_OK ||
                !json_is_object(config))
                abort();
            json_decref(config);
            if (part != PART_SCHEDULER)
                tensors_read(c, (enum model_part)part);
        }
    } else if (!err_text[0]) {
        abort(); /* an error without a text */
    }
    checkpoint_close(c);
    bytes_file_close(&f);
    return 0;
}
