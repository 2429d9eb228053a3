/* options_safety.c: the safety checker that a model may come with. */
#include "options.h"

#include <stdlib.h>
#include <unistd.h>

static size_t rows(struct sag_arguments *a, cli_option *rows)
{
    rows[0] = (cli_option){"no-safety-checker", CLI_FLAG, &a->safety.without, NULL,
                           "use a model that comes with one without it"};
    return 1;
}

/* A model that comes with a checker is not used without it unless that was asked for. */
static attn_status load(struct sag_arguments *a, attn_error *err)
{
    char *path = NULL;
    attn_status status = ATTN_OK;
    if (a->safety.without) {
        return ATTN_OK;
    }
    if (asprintf(&path, "%s/safety_checker", a->model.folder) < 0) {
        return attn_fail(err, ATTN_NOMEM, "out of memory");
    }
    if (access(path, F_OK) == 0) {
        status = attn_fail(err, ATTN_UNSUPPORTED,
                           "%s: the safety checker is not supported by this version;"
                           " --no-safety-checker uses the model without it",
                           path);
    }
    free(path);
    return status;
}

const struct sag_subject sag_safety = {.name = "Safety", .rows = rows, .load = load};
