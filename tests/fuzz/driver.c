/* driver.c: runs a harness over files, and over each of them cut short and with bits flipped, where
 * there is no libFuzzer.
 *
 *   fuzz_NAME FILE... */
#include "bytes_file.h"

#include <string.h>

/* FUZZ_MUTATIONS: how many of each file; 400 unless set. */
static void mutate(const uint8_t *data, size_t size)
{
    const char *text = getenv("FUZZ_MUTATIONS");
    const int mutations = text ? atoi(text) : 400;
    uint64_t state = 88172645463325252u;
    uint8_t *copy = malloc(size + 1);
    if (!copy)
        abort();
    for (int n = 0; n < mutations && size; n++) {
        size_t length = size;
        memcpy(copy, data, size);
        for (int f = 0; f < 1 + n % 4; f++) {
            state ^= state << 13, state ^= state >> 7,
                state ^= state << 17; /* xorshift64, Marsaglia 2003 */
            if (n % 3)
                copy[state % size] ^= (uint8_t)(1u << (state >> 32 & 7));
            else
                length = state % size;
        }
        (void)LLVMFuzzerTestOneInput(copy, length);
    }
    free(copy);
}

int main(int argc, char **argv)
{
    enum { MOST = 1 << 20 };
    uint8_t *data = malloc(MOST);
    if (!data || argc < 2)
        return 1;
    for (int i = 1; i < argc; i++) {
        FILE *f = fopen(argv[i], "rb");
        if (!f)
            return fprintf(stderr, "%s: cannot be read\n", argv[i]), 1;
        size_t size = fread(data, 1, MOST, f);
        fclose(f);
        (void)LLVMFuzzerTestOneInput(data, size);
        mutate(data, size);
    }
    free(data);
    return 0;
}
