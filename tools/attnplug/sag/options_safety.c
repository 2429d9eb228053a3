/* options_safety.c: the safety checker that a model may come with. */
#include "options.h"

static size_t rows(struct sag_arguments *a, cli_option *rows)
{
    rows[0] = (cli_option){"no-safety-checker", CLI_FLAG, &a->safety.without, NULL,
                           "use a model that comes with one without it"};
    return 1;
}

static void open_(struct sag_arguments *a, attn_sag_open_options *o)
{
    o->flags |= a->safety.without ? ATTN_SAG_NO_SAFETY_CHECKER : 0;
}

const struct sag_subject sag_safety = {.name = "Safety", .rows = rows, .open = open_};
