#include "lora_keys.h"

#include <stdlib.h>
#include <string.h>

/* How a tensor's part is written behind its module. */
static const struct ending {
    const char *text;
    enum lora_part part;
} endings[] = {
    {".lora_down.weight", LORA_DOWN},
    {".lora_up.weight", LORA_UP},
    {".lora.down.weight", LORA_DOWN},
    {".lora.up.weight", LORA_UP},
    {"_lora.down.weight", LORA_DOWN},
    {"_lora.up.weight", LORA_UP},
    {".lora_linear_layer.down.weight", LORA_DOWN},
    {".lora_linear_layer.up.weight", LORA_UP},
    {".lora_A.weight", LORA_DOWN},
    {".lora_B.weight", LORA_UP},
    {".lora_A.default.weight", LORA_DOWN},
    {".lora_B.default.weight", LORA_UP},
};
enum { ENDINGS = sizeof(endings) / sizeof(*endings) };

/* Where an alpha stands beside the pair and not beside the module. */
static const char *const pair_names[] = {"_lora", ".lora", ".lora_linear_layer"};

/* Words before the module.  The longer ones of a beginning come first. */
static const struct beginning {
    const char *text;
    int component; /* -1: says nothing */
} beginnings[] = {
    {"lora_unet_", LORA_UNET},
    {"lora_te1_", LORA_TEXT_ENCODER},
    {"lora_te_", LORA_TEXT_ENCODER},
    {"unet.", LORA_UNET},
    {"text_encoder.", LORA_TEXT_ENCODER},
    {"base_model.model.", -1},
};
enum { BEGINNINGS = sizeof(beginnings) / sizeof(*beginnings) };

static size_t ends_with(const char *text, size_t n, const char *end)
{
    const size_t m = strlen(end);
    return n > m && memcmp(text + n - m, end, m) == 0 ? m : 0;
}

static int begins_with(const char *text, const char *begin)
{
    return strncmp(text, begin, strlen(begin)) == 0;
}

/* The length of name without its part, which is told. */
static size_t part_strip(const char *name, enum lora_part *part)
{
    size_t n = strlen(name);
    size_t cut = ends_with(name, n, ".alpha");
    const char *dot;
    for (size_t i = 0; i < ENDINGS; i++) {
        const size_t found = ends_with(name, n - cut, endings[i].text);
        if (found) {
            *part = cut ? LORA_ALPHA : endings[i].part;
            return n - cut - found;
        }
    }
    if (cut) {
        n -= cut;
        *part = LORA_ALPHA;
        for (size_t i = 0; i < sizeof(pair_names) / sizeof(*pair_names); i++) {
            n -= ends_with(name, n, pair_names[i]);
        }
        return n;
    }
    *part = LORA_OTHER;
    n -= ends_with(name, n, ".weight");
    dot = memrchr(name, '.', n);
    return dot && dot > name ? (size_t)(dot - name) : n;
}

/* Takes the words before the module away. */
static const char *component_strip(const char *name, const char *end, enum lora_component *found)
{
    int told = 0;
    for (size_t i = 0; i < BEGINNINGS; i++) {
        const size_t n = strlen(beginnings[i].text);
        if ((size_t)(end - name) > n && begins_with(name, beginnings[i].text)) {
            name += n;
            if (beginnings[i].component >= 0) {
                *found = (enum lora_component)beginnings[i].component;
                told = 1;
            }
            i = (size_t)-1; /* a name may have several: "unet.unet." */
        }
    }
    if (!told) {
        *found = begins_with(name, "text_model.") ? LORA_TEXT_ENCODER : LORA_UNET;
    }
    return name;
}

/* Removes each ".processor" that is a whole word of the name. */
static void processor_strip(char *name)
{
    static const char word[] = ".processor";
    const size_t n = sizeof(word) - 1;
    for (char *at = name; (at = strstr(at, word));) {
        if (at[n] == '.' || at[n] == 0) {
            memmove(at, at + n, strlen(at + n) + 1);
        } else {
            at += n;
        }
    }
}

/* diffusers' names of the four projections, where the model calls them otherwise. */
static void target_rename(char *name, enum lora_component component)
{
    static const char *const text[][2] = {
        {".to_q", ".q_proj"}, {".to_k", ".k_proj"}, {".to_v", ".v_proj"}, {".to_out", ".out_proj"}};
    const size_t n = strlen(name);
    size_t cut;
    if (component == LORA_UNET) {
        if (ends_with(name, n, ".to_out")) {
            memcpy(name + n, ".0", 3);
        }
        return;
    }
    for (size_t i = 0; i < 4; i++) {
        cut = ends_with(name, n, text[i][0]);
        if (cut) {
            memcpy(name + n - cut, text[i][1], strlen(text[i][1]) + 1);
            return;
        }
    }
}

char *lora_fold(char *module)
{
    static const char text_model[] = "text_model_";
    for (char *c = module; *c; c++) {
        *c = *c == '.' ? '_' : *c;
    }
    return begins_with(module, text_model) ? module + sizeof(text_model) - 1 : module;
}

int lora_key_parse(const char *name, struct lora_key *key)
{
    enum { RENAMED = 8 }; /* more than a new name of a projection is longer */
    const char *end = name + part_strip(name, &key->part);
    const char *module = component_strip(name, end, &key->component);
    const size_t n = (size_t)(end - module);
    char *copy = malloc(n + RENAMED);
    char *folded;
    key->module = copy;
    if (!copy) {
        return -1;
    }
    memcpy(copy, module, n);
    copy[n] = 0;
    processor_strip(copy);
    target_rename(copy, key->component);
    folded = lora_fold(copy);
    memmove(copy, folded, strlen(folded) + 1);
    return 0;
}

const char *lora_key_family(const char *name)
{
    static const struct {
        const char *begin, *family;
    } known[] = {
        {"lora_te2_", "Stable Diffusion XL"},
        {"text_encoder_2.", "Stable Diffusion XL"},
        {"lora_unet_input_blocks_", "Stable Diffusion XL"},
        {"lora_unet_middle_block_", "Stable Diffusion XL"},
        {"lora_unet_output_blocks_", "Stable Diffusion XL"},
        {"lora_te3_", "Stable Diffusion 3 or Flux"},
        {"transformer.", "Stable Diffusion 3 or Flux"},
        {"lora_transformer_", "Stable Diffusion 3 or Flux"},
        {"lora_unet_double_blocks_", "Flux"},
        {"lora_unet_single_blocks_", "Flux"},
        {"lora_unet_joint_blocks_", "Stable Diffusion 3"},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
        if (begins_with(name, known[i].begin)) {
            return known[i].family;
        }
    }
    return NULL;
}
