/* options_image_prompt.c: pictures as prompts. */
#include "options.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static size_t rows(struct sag_arguments *a, cli_option *rows)
{
    struct image_prompt_options *o = &a->image_prompt;
    size_t n = 0;
    rows[n++] = (cli_option){"ip-adapter", CLI_TEXTS, &o->adapter_texts, "FILE[:SCALE]",
                             "an IP-Adapter (plain, Plus or full), at that scale (1); may be"
                             " repeated"};
    rows[n++] = (cli_option){"ip-adapter-image", CLI_TEXTS, &o->image_texts, "FILE",
                             "a PNG, JPEG or WebP for it; several are for the one --ip-adapter, or"
                             " one for each"};
    rows[n++] = (cli_option){"ip-adapter-image-embeds", CLI_TEXT, &o->embeds_file, "FILE",
                             "in place of pictures what the image encoder makes of them:"
                             " ip_adapter_image_embeds.0, .1, ... [2, pictures, ...] in a"
                             " .safetensors file, negative ones first"};
    rows[n++] = (cli_option){"image-encoder", CLI_TEXT, &o->encoder, "DIR",
                             "CLIP's image encoder (the model's image_encoder, else the one beside"
                             " the first --ip-adapter)"};
    return n;
}

static int adapter_read(struct image_prompt_options *o, uint32_t i)
{
    const char *text = o->adapter_texts.items[i];
    double scale = 1;
    o->copies[i] = strdup(text);
    if (!o->copies[i]) {
        return cli_fail("out of memory");
    }
    (void)number_cut(o->copies[i], &scale);
    if (!isfinite(scale)) {
        return cli_misuse("--ip-adapter: \"%s\", expected a finite scale", text);
    }
    o->adapters[i] = (attn_sag_ip_adapter){o->copies[i], scale};
    return *o->copies[i] ? 0 : cli_misuse("--ip-adapter: \"%s\" names no file", text);
}

static int check(struct sag_arguments *a)
{
    struct image_prompt_options *o = &a->image_prompt;
    const uint32_t adapters = o->adapter_texts.n;
    const uint32_t images = o->image_texts.n;
    int wrong = 0;
    for (uint32_t i = 0; i < adapters && !wrong; i++) {
        wrong = adapter_read(o, i);
    }
    if (!wrong && !adapters && (images || o->embeds_file || o->encoder)) {
        wrong = cli_misuse("--%s: given without --ip-adapter", images ? "ip-adapter-image"
                                                               : o->embeds_file
                                                                   ? "ip-adapter-image-embeds"
                                                                   : "image-encoder");
    }
    if (!wrong && images && o->embeds_file) {
        wrong = cli_misuse("--ip-adapter-image and --ip-adapter-image-embeds: both given");
    }
    if (!wrong && adapters && !images && !o->embeds_file) {
        wrong = cli_misuse("--ip-adapter: given without a picture: expected --ip-adapter-image");
    }
    if (!wrong && adapters > 1 && images && images != adapters) {
        wrong = cli_misuse("--ip-adapter-image: given %u times for %u --ip-adapter, expected one"
                           " for each",
                           images, adapters);
    }
    for (uint32_t i = 0; i < images; i++) {
        o->images[i] = (attn_sag_image_prompt){.adapter = adapters > 1 ? i : 0,
                                               .file = o->image_texts.items[i]};
    }
    return wrong;
}

static attn_status load(struct sag_arguments *a, attn_error *err)
{
    struct image_prompt_options *o = &a->image_prompt;
    attn_status status = ATTN_OK;
    for (uint32_t i = 0; o->embeds_file && i < o->adapter_texts.n && !status; i++) {
        char name[40];
        (void)snprintf(name, sizeof name, "ip_adapter_image_embeds.%u", i);
        status = tensor_load(o->embeds_file, name, false, &o->embeds[i], err);
        o->n_embeds = i + 1;
    }
    return status;
}

static void open_(struct sag_arguments *a, attn_sag_open_options *o)
{
    o->ip_adapters = a->image_prompt.adapters;
    o->n_ip_adapters = a->image_prompt.adapter_texts.n;
    o->image_encoder = a->image_prompt.encoder;
}

static void run(struct sag_arguments *a, attn_sag_run_options *o)
{
    o->ip_adapter_image = a->image_prompt.images;
    o->n_ip_adapter_image = a->image_prompt.image_texts.n;
    o->ip_adapter_image_embeds = a->image_prompt.embeds;
    o->n_ip_adapter_image_embeds = a->image_prompt.n_embeds;
}

static void describe(const struct sag_arguments *a, FILE *to)
{
    for (uint32_t i = 0; i < a->image_prompt.adapter_texts.n; i++) {
        (void)fprintf(to, ", IP-Adapter: \"%s\"", a->image_prompt.adapter_texts.items[i]);
    }
    for (uint32_t i = 0; i < a->image_prompt.image_texts.n; i++) {
        (void)fprintf(to, ", IP-Adapter image: \"%s\"", a->image_prompt.image_texts.items[i]);
    }
}

static void release(struct sag_arguments *a)
{
    struct image_prompt_options *o = &a->image_prompt;
    for (uint32_t i = 0; i < CLI_MAX_TEXTS; i++) {
        free(o->copies[i]);
        free(o->embeds[i].data);
    }
}

const struct sag_subject sag_image_prompt = {.name = "Pictures as prompts",
                                             .rows = rows,
                                             .check = check,
                                             .load = load,
                                             .open = open_,
                                             .run = run,
                                             .describe = describe,
                                             .free = release};
