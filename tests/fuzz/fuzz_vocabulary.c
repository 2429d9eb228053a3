/* fuzz_vocabulary.c: any bytes as vocab.json and merges.txt (parted by the first NUL): an error, or
 * an encoder. */
#include "bpe.h"
#include "bytes_file.h"

#include <string.h>

/* Every token as text, what is no token among them. */
static void decode(const bpe *b)
{
    for (int64_t id = -1; id <= (int64_t)bpe_highest_id(b) + 1 && id < 4096; id++) {
        const char *text = bpe_token_text(b, (int32_t)id);
        char *out = malloc(text ? strlen(text) + 1 : 1);
        if (!out || (text && bpe_token_id(b, text) < 0) ||
            bpe_decode(b, (int32_t)id, out) > (text ? strlen(text) : 0))
            abort();
        free(out);
    }
    (void)bpe_vocab_size(b);
}

/* The merges alone, as CLIP's own vocabulary is numbered from them. */
static void open_clip(const uint8_t *merges, size_t bytes)
{
    ATTN_ERROR_ON(err, 256);
    bpe *b = NULL;
    if (bpe_open_clip(bytes ? (const char *)merges : "", bytes, &b, &err) != ATTN_OK &&
        !err_text[0])
        abort();
    bpe_close(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ATTN_ERROR_ON(err, 256);
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    size_t first = nul ? (size_t)(nul - data) : size, second = nul ? size - first - 1 : 0;
    struct bytes_file vocab = bytes_file_open(data, first);
    struct bytes_file merges = bytes_file_open(nul ? nul + 1 : data, second);
    bpe *b = NULL;
    if (bpe_open(vocab.path, merges.path, &b, &err) == ATTN_OK) {
        id_list ids = {0};
        (void)bpe_encode(b, "a red heart", 11, 0, &ids, &err);
        for (size_t i = 0; i < ids.count; i++)
            if (ids.ids[i] != 0 && ids.ids[i] > bpe_highest_id(b)) /* 0: unknown */
                abort();
        decode(b);
        id_list_free(&ids);
    } else if (!err_text[0]) {
        abort();
    }
    bpe_close(b);
    open_clip(nul ? nul + 1 : data, second);
    bytes_file_close(&vocab);
    bytes_file_close(&merges);
    return 0;
}
