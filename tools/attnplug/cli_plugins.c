/* cli_plugins.c: the registry as the command opens it, and words for devices and types. */
#include "cli.h"

#include "error.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int cli_registry(attn_registry **registry)
{
    ATTN_ERROR_ON(err, 1024);
    attn_registry_options options = {.size = sizeof options,
                                     .flags = cli_global.trust_all ? ATTN_REGISTRY_TRUST_ALL : 0,
                                     .paths = cli_global.plugin_paths.items,
                                     .n_paths = cli_global.plugin_paths.n,
                                     .log = cli_log};
    attn_status status = attn_registry_open(&options, registry, &err);
    return status == ATTN_OK ? 0 : cli_fail("%s", err.text);
}

static const struct {
    const char *name;
    int32_t type;
} devices[] = {{"cpu", ATTN_DEVICE_CPU}, {"cuda", ATTN_DEVICE_CUDA}, {"cann", ATTN_DEVICE_EXT}};
enum { N_DEVICES = sizeof devices / sizeof *devices };

static const struct {
    const char *name;
    uint8_t code, bits;
    uint64_t bit;
} dtypes[] = {
    {"f32", ATTN_CODE_FLOAT, 32, ATTN_DTYPE_F32},
    {"f16", ATTN_CODE_FLOAT, 16, ATTN_DTYPE_F16},
    {"bf16", ATTN_CODE_BFLOAT, 16, ATTN_DTYPE_BF16},
    {"f64", ATTN_CODE_FLOAT, 64, ATTN_DTYPE_F64},
};
enum { N_DTYPES = sizeof dtypes / sizeof *dtypes };

bool cli_device(const char *text, attn_device *device)
{
    size_t n = strcspn(text, ":");
    char *end = NULL;
    long id = text[n] ? strtol(text + n + 1, &end, 10) : 0;
    bool id_right = !text[n] || (end != text + n + 1 && !*end && id >= 0 && id < 1024);
    for (int i = 0; i < N_DEVICES && id_right; i++) {
        if (strlen(devices[i].name) == n && strncmp(devices[i].name, text, n) == 0) {
            *device = (attn_device){.type = devices[i].type, .id = (int32_t)id};
            (void)snprintf(device->runtime, sizeof device->runtime, "%s", devices[i].name);
            return true;
        }
    }
    (void)cli_misuse("--device: \"%s\", expected cpu, cuda, cuda:1 or cann", text);
    return false;
}

bool cli_dtype(const char *text, uint8_t *code, uint8_t *bits)
{
    for (int i = 0; i < N_DTYPES; i++) {
        if (strcmp(dtypes[i].name, text) == 0) {
            *code = dtypes[i].code;
            *bits = dtypes[i].bits;
            return true;
        }
    }
    (void)cli_misuse("--dtype: \"%s\", expected f32, f16, bf16 or f64", text);
    return false;
}

bool cli_shape(const char *text, int64_t *shape, int n)
{
    const char *at = text;
    for (int i = 0; i < n; i++) {
        char *end = NULL;
        errno = 0;
        shape[i] = strtoll(at, &end, 10);
        bool last = i == n - 1;
        if (errno || end == at || shape[i] < 1 || shape[i] > (INT64_C(1) << 40) ||
            *end != (last ? 0 : ',')) {
            (void)cli_misuse("--shape: \"%s\", expected %d numbers with commas between", text, n);
            return false;
        }
        at = end + 1;
    }
    return true;
}

static void add_word(char *text, size_t capacity, const char *word)
{
    size_t n = strlen(text);
    (void)snprintf(text + n, capacity - n, "%s%s", n ? "," : "", word);
}

void cli_devices_text(uint64_t bits, char *text, size_t capacity)
{
    text[0] = 0;
    for (int type = 0; type < 64; type++) {
        char number[24];
        const char *word = number;
        (void)snprintf(number, sizeof number, "device%d", type);
        for (int i = 0; i < N_DEVICES; i++) {
            word = devices[i].type == type ? devices[i].name : word;
        }
        if (bits >> type & 1) {
            add_word(text, capacity, word);
        }
    }
}

void cli_dtypes_text(uint64_t bits, char *text, size_t capacity)
{
    text[0] = 0;
    for (int i = 0; i < N_DTYPES; i++) {
        if (bits & dtypes[i].bit) {
            add_word(text, capacity, dtypes[i].name);
        }
    }
}

attn_tensor cli_tensor(const attn_device *device, uint8_t code, uint8_t bits, uint32_t rank,
                       const int64_t *shape)
{
    attn_tensor t = {.device_type = device->type,
                     .device_id = device->id,
                     .code = code,
                     .bits = bits,
                     .lanes = 1,
                     .rank = rank};
    int64_t stride = 1;
    for (uint32_t i = rank; i-- > 0;) {
        t.shape[i] = shape[i];
        t.stride[i] = stride;
        stride *= shape[i] > 0 ? shape[i] : 1;
    }
    return t;
}

/* Length of the UTF-8 sequence at s, 0 if it is none. */
static int utf8_length(const unsigned char *s)
{
    int n = s[0] < 0x80                   ? 1
            : s[0] >= 0xc2 && s[0] < 0xe0 ? 2
            : s[0] >= 0xe0 && s[0] < 0xf0 ? 3
            : s[0] >= 0xf0 && s[0] < 0xf5 ? 4
                                          : 0;
    for (int i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    if ((s[0] == 0xe0 && n == 3 && s[1] < 0xa0) || (s[0] == 0xed && n == 3 && s[1] > 0x9f) ||
        (s[0] == 0xf0 && n == 4 && s[1] < 0x90) || (s[0] == 0xf4 && n == 4 && s[1] > 0x8f)) {
        return 0;
    }
    return n;
}

void cli_json_text(FILE *to, const char *text)
{
    (void)fputc('"', to);
    for (const unsigned char *s = (const unsigned char *)text; *s;) {
        int n = utf8_length(s);
        if (n == 0) {
            (void)fputs("\\ufffd", to);
            s++;
        } else if (*s == '"' || *s == '\\') {
            (void)fprintf(to, "\\%c", *s++);
        } else if (*s < 0x20 || *s == 0x7f) {
            (void)fprintf(to, "\\u%04x", *s++);
        } else {
            (void)fwrite(s, 1, (size_t)n, to);
            s += n;
        }
    }
    (void)fputc('"', to);
}
