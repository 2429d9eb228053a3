/* values.c: inputs in the type of the timing. */
#include "bench.h"

#include "../check/guard.h"
#include "../check/random.h"

#include <string.h>

static attn_tensor line(void *data, int64_t n, uint8_t code, uint8_t bits)
{
    return (attn_tensor){.data = data,
                         .shape = {n, 1, 1, 1},
                         .stride = {1, 1, 1, 1},
                         .code = code,
                         .bits = bits,
                         .lanes = 1,
                         .rank = 1};
}

/* A quarter of a million numbers, and then those again: enough that no two rows near each other are
 * alike, and quick. */
void bench_values(void *to, int64_t elements, uint8_t code, uint8_t bits, uint64_t seed)
{
    const int64_t period = 262139; /* a prime: rows do not line up */
    const int64_t drawn = elements < period ? elements : period;
    const attn_tensor t = line(to, elements, code, bits);
    struct random r = random_for(seed, 0);
    for (int64_t i = 0; i < drawn; i++) {
        tensor_set(&t, (const int64_t[4]){i, 0, 0, 0}, random_normal(&r));
    }
    const size_t element = bits / 8;
    for (int64_t done = drawn; done < elements;) {
        const int64_t more = elements - done < drawn ? elements - done : drawn;
        memcpy((char *)to + (size_t)done * element, to, (size_t)more * element);
        done += more;
    }
}

void bench_widen(const void *from, float *to, int64_t elements, uint8_t code, uint8_t bits)
{
    const attn_tensor t = line((void *)(uintptr_t)from, elements, code, bits);
    for (int64_t i = 0; i < elements; i++) {
        to[i] = (float)tensor_get(&t, (const int64_t[4]){i, 0, 0, 0});
    }
}
