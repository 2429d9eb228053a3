/* options_image_prompt.c: pictures as prompts. */
#include "options.h"

static size_t rows(struct sag_arguments *a, cli_option *rows)
{
    static const char later[] = "not in this version";
    size_t n = 0;
    (void)a;
    rows[n++] = (cli_option){"ip-adapter", CLI_LATER, NULL, "FILE[:SCALE]", later};
    rows[n++] = (cli_option){"ip-adapter-image", CLI_LATER, NULL, "FILE", later};
    rows[n++] = (cli_option){"image-encoder", CLI_LATER, NULL, "DIR", later};
    return n;
}

const struct sag_subject sag_image_prompt = {.name = "Pictures as prompts", .rows = rows};
