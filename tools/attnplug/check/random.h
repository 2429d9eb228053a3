/* random.h: seeded numbers for cases.  The same seed gives the same case on every machine. */
#ifndef ATTNPLUG_CHECK_RANDOM_H
#define ATTNPLUG_CHECK_RANDOM_H

#include <math.h>
#include <stdint.h>

struct random {
    uint64_t state;
};

/* splitmix64 (Steele, Lea, Flood 2014). */
static inline uint64_t random_word(struct random *r)
{
    uint64_t z = (r->state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static inline struct random random_for(uint64_t seed, uint64_t index)
{
    struct random r = {seed * UINT64_C(0xD1342543DE82EF95) + index};
    (void)random_word(&r);
    return r;
}

/* low <= result <= high */
static inline int64_t random_between(struct random *r, int64_t low, int64_t high)
{
    return low + (int64_t)(random_word(r) % (uint64_t)(high - low + 1));
}

static inline int random_percent(struct random *r, int percent)
{
    return random_between(r, 0, 99) < percent;
}

static inline double random_unit(struct random *r)
{
    return ((double)(random_word(r) >> 11) + 0.5) * 0x1p-53;
}

/* Normal, with one in a hundred eight times as large: uniform noise makes softmax tests
 * meaningless. */
static inline double random_normal(struct random *r)
{
    double x = sqrt(-2 * log(random_unit(r))) * cos(6.283185307179586 * random_unit(r));
    return random_percent(r, 1) ? 8 * x : x;
}

#endif
