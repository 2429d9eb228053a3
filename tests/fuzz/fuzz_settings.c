/* fuzz_settings.c: any bytes as a tokenizer's settings: tokenizer_config.json,
 * special_tokens_map.json and added_tokens.json, parted by NULs (a file after the last NUL is not
 * there), beside a small vocabulary: an error with a text, or a tokenizer that encodes. */
#include "folder_file.h"
#include "tokenizer.h"

static const char vocab[] =
    "{\"a\": 0, \"b\": 1, \"a</w>\": 2, \"ab</w>\": 3, \"<|startoftext|>\": 4, "
    "\"<|endoftext|>\": 5}";
static const char merges[] = "#version: 0.2\na b</w>\n";

static void encode(const tokenizer *t)
{
    ATTN_ERROR_ON(err, 256);
    char *cut = NULL;
    size_t n = tokenizer_max_length(t);
    int32_t *ids = malloc(n * sizeof *ids);
    if (!ids)
        abort();
    if (tokenizer_encode(t, "ab a <|endoftext|> <new> [MASK] b", ids, &cut, &err) == ATTN_OK)
        for (size_t i = 0; i < n; i++)
            if (ids[i] < 0 || ids[i] > tokenizer_highest_id(t))
                abort();
    free(cut);
    free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"tokenizer_config.json", "special_tokens_map.json",
                                        "added_tokens.json"};
    ATTN_ERROR_ON(err, 256);
    int fd[5] = {folder_put("vocab.json", (const uint8_t *)vocab, sizeof vocab - 1),
                 folder_put("merges.txt", (const uint8_t *)merges, sizeof merges - 1)};
    for (int i = 0; i < 3; i++) {
        const uint8_t *nul = data && size ? memchr(data, 0, size) : NULL;
        size_t bytes = nul ? (size_t)(nul - data) : size;
        fd[2 + i] = folder_put(names[i], data, bytes);
        data = nul ? nul + 1 : NULL;
        size -= nul ? bytes + 1 : bytes;
    }
    tokenizer *t = NULL;
    if (tokenizer_open(folder_of_bytes(), &t, &err) == ATTN_OK)
        encode(t);
    else if (!err_text[0])
        abort(); /* an error without a text */
    tokenizer_close(t);
    for (int i = 0; i < 5; i++)
        folder_close(fd[i]);
    return 0;
}
