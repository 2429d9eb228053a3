#include "original.h"

static uint64_t name_hash(const char *name)
{
    uint64_t hash = 0xCBF29CE484222325u;
    for (; *name; name++) {
        hash = (hash ^ (uint8_t)*name) * 0x100000001B3u;
    }
    return hash;
}

/* splitmix64's next number as one of -1024 .. 1023. */
static int next_number(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    return (int)(z >> 53) - 1024;
}

/* The bits of a number that fp16 holds exactly. */
static uint16_t half_bits(double value)
{
    int exponent;
    const double fraction = frexp(fabs(value), &exponent); /* 0.5 to 1 */
    uint16_t bits = value < 0 ? 0x8000 : 0;
    if (value == 0) {
        return bits;
    }
    if (exponent < -13) { /* below the least normal number */
        return bits | (uint16_t)ldexp(fabs(value), 24);
    }
    return bits | (uint16_t)((exponent + 14) << 10) | (uint16_t)((int)(fraction * 2048) - 1024);
}

static double scale_of(const safetensors_tensor *t)
{
    int64_t fan = 1;
    int bits = 0;
    for (uint32_t i = 1; i < t->rank; i++) {
        fan *= t->shape[i];
    }
    while (fan >> bits) {
        bits++;
    }
    const int halvings = (bits - 1) / 2 - 1;
    return ldexp(1.0 / 1024, halvings > 0 ? -halvings : 0);
}

static void *weights_fill(safetensors_tensor *t)
{
    uint64_t state = name_hash(t->name);
    const size_t length = strlen(t->name);
    const int norm = t->rank == 1 && length > 6 && strcmp(t->name + length - 6, "weight") == 0;
    const double scale = t->rank == 1 ? 1.0 / 8192 : scale_of(t);
    size_t n = 1;
    uint16_t *data;
    for (uint32_t i = 0; i < t->rank; i++) {
        n *= (size_t)t->shape[i];
    }
    data = malloc(n * sizeof *data);
    assert_non_null(data);
    for (size_t i = 0; i < n; i++) {
        const int k = next_number(&state);
        data[i] = half_bits(norm ? 1 + floor(k / 16.0) / 256 : k * scale);
    }
    t->data = data;
    t->bytes = n * sizeof *data;
    return data;
}

struct original original_read(const safetensors *golden)
{
    const char *stored = safetensors_metadata(golden, "listing");
    struct original o = {0};
    size_t lines = 1;
    char *save = NULL;
    assert_non_null(stored);
    o.listing = strdup(stored);
    assert_non_null(o.listing);
    for (const char *c = stored; *c; c++) {
        lines += *c == '\n';
    }
    o.tensors = calloc(lines, sizeof *o.tensors);
    o.data = calloc(lines, sizeof *o.data);
    assert_non_null(o.tensors);
    assert_non_null(o.data);
    for (char *line = strtok_r(o.listing, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        safetensors_tensor *t = &o.tensors[o.n++];
        char *at = strchr(line, ' ');
        assert_non_null(at);
        *at = 0;
        *t = (safetensors_tensor){.name = line, .dtype = {2, 16}};
        while (at && t->rank < SAFETENSORS_MAX_RANK) {
            t->shape[t->rank++] = strtoll(at + 1, &at, 10);
            at = *at == ',' ? at : NULL;
        }
        o.data[o.n_data++] = weights_fill(t);
    }
    return o;
}

struct original original_copy(const struct original *o)
{
    struct original copy = {.n = o->n, .tensors = calloc(o->n, sizeof *copy.tensors)};
    assert_non_null(copy.tensors);
    memcpy(copy.tensors, o->tensors, o->n * sizeof *copy.tensors);
    return copy;
}

void original_free(struct original *o)
{
    for (size_t i = 0; i < o->n_data; i++) {
        free(o->data[i]);
    }
    free(o->data);
    free(o->tensors);
    free(o->listing);
}

void original_write(const struct original *o, const char *path)
{
    ATTN_ERROR_ON(err, 512);
    if (safetensors_write(path, o->tensors, o->n, NULL, 0, &err)) {
        fail_msg("%s", err.text);
    }
}

safetensors_tensor *original_find(struct original *o, const char *name)
{
    for (size_t i = 0; i < o->n; i++) {
        if (strcmp(o->tensors[i].name, name) == 0) {
            return &o->tensors[i];
        }
    }
    fail_msg("no tensor %s", name);
    return NULL;
}

void original_add(struct original *o, const safetensors_tensor *t)
{
    safetensors_tensor *longer = realloc(o->tensors, (o->n + 1) * sizeof *longer);
    assert_non_null(longer);
    o->tensors = longer;
    o->tensors[o->n++] = *t;
}

size_t original_drop(struct original *o, const char *prefix)
{
    size_t kept = 0;
    for (size_t i = 0; i < o->n; i++) {
        if (strncmp(o->tensors[i].name, prefix, strlen(prefix)) != 0) {
            o->tensors[kept++] = o->tensors[i];
        }
    }
    const size_t dropped = o->n - kept;
    o->n = kept;
    return dropped;
}
