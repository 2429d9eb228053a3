/* fuzz_tokenizer.c: any bytes as a prompt: an error that names a byte, or ids below the
 * vocabulary's end. FUZZ_MODEL: a tokenizer folder (the built-in model's). */
#include "bytes_file.h"
#include "tokenizer.h"

#include <string.h>

static tokenizer *opened(void)
{
    static tokenizer *t;
    const char *folder = getenv("FUZZ_MODEL");
    if (!t && (!folder || tokenizer_open(folder, &t, NULL) != ATTN_OK)) {
        fprintf(stderr, "FUZZ_MODEL: expected a tokenizer folder\n");
        exit(2);
    }
    return t;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ATTN_ERROR_ON(err, 256);
    const tokenizer *t = opened();
    size_t n = tokenizer_max_length(t);
    char *text = malloc(size + 1), *cut = NULL;
    int32_t *ids = malloc(n * sizeof *ids);
    if (!text || !ids)
        abort();
    if (size)
        memcpy(text, data, size);
    text[size] = 0;
    if (tokenizer_encode(t, text, ids, &cut, &err) == ATTN_OK) {
        for (size_t i = 0; i < n; i++)
            if (ids[i] < 0 || ids[i] > tokenizer_highest_id(t))
                abort();
    } else if (!err_text[0]) {
        abort();
    }
    free(cut);
    free(ids);
    free(text);
    return 0;
}
