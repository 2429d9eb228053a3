/* options_adapters.c: what changes a model's weights or its words. */
#include "options.h"

static size_t rows(struct sag_arguments *a, cli_option *rows)
{
    static const char later[] = "not in this version";
    size_t n = 0;
    (void)a;
    rows[n++] = (cli_option){"lora", CLI_LATER, NULL, "FILE[:SCALE]", later};
    rows[n++] = (cli_option){"lora-scale", CLI_LATER, NULL, "X", later};
    rows[n++] = (cli_option){"lora-ignore-unknown", CLI_LATER, NULL, NULL, later};
    rows[n++] = (cli_option){"custom-diffusion", CLI_LATER, NULL, "FILE", later};
    rows[n++] = (cli_option){"textual-inversion", CLI_LATER, NULL, "FILE[:TOKEN]", later};
    return n;
}

const struct sag_subject sag_adapters = {.name = "Adapters", .rows = rows};
