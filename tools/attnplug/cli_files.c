/* cli_files.c: plugins named by their files, wherever a name is taken; names that are none. */
#include "cli.h"

#include "attn_router.h"
#include "error.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_file(const char *name)
{
    return name && strchr(name, '/');
}

/* Its file is searched before all folders. */
static int search_first(const char *option, const char *name)
{
    cli_texts *paths = &cli_global.plugin_paths;
    if (!is_file(name)) {
        return 0;
    }
    if (access(name, R_OK) != 0) {
        return cli_misuse("--%s: %s: %s", option, name, strerror(errno));
    }
    if (paths->n == CLI_MAX_TEXTS) {
        return cli_misuse("--%s: %s: too many --plugin-path", option, name);
    }
    memmove(paths->items + 1, paths->items, paths->n++ * sizeof *paths->items);
    paths->items[0] = name;
    return 0;
}

static bool same_file(const char *a, const char *b)
{
    struct stat x;
    struct stat y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* *name becomes the id of its file's op, or processor. */
static int id_of(attn_registry *registry, const char *option, bool op, const char **name)
{
    attn_file_info info = {.size = sizeof info};
    if (!is_file(*name)) {
        return 0;
    }
    for (uint32_t i = 0; attn_registry_file(registry, i, &info) == ATTN_OK; i++) {
        if (!same_file(info.path, *name)) {
            continue;
        }
        if (info.verdict != ATTN_VERDICT_OK) {
            return cli_misuse("--%s: %s was refused: %s: %s", option, *name,
                              attn_verdict_name(info.verdict), info.reason);
        }
        const attn_head *head = op ? info.op : info.processor;
        if (!head) {
            return cli_misuse("--%s: %s has %s", option, *name,
                              op ? "a processor, and no op" : "an op, and no processor");
        }
        *name = head->id;
        return 0;
    }
    return cli_misuse("--%s: %s: expected a plugin's file", option, *name);
}

int cli_op_file(const char *op)
{
    return search_first("op", op);
}

int cli_op_of_file(attn_registry *registry, const char **op)
{
    return id_of(registry, "op", true, op);
}

int cli_op_known(attn_registry *registry, const char *op)
{
    ATTN_ERROR_ON(err, 1280);
    attn_name name = {.size = sizeof name};
    return op && attn_name_find_in(registry, op, ATTN_NAME_OPS, &name, &err)
               ? cli_misuse("--op: %s", err.text)
               : 0;
}

/* -- a processor's words: [GLOB=]NAME[+NAME][:PARAM=VALUE,...] --------------------------------- */

static const char option[] = "processor", inner[] = "attention_op=";

const char *cli_processor_names(const char *text)
{
    const size_t n = strcspn(text, "=:/");
    return text[n] == '=' ? text + n + 1 : text;
}

int cli_processor_files(const char *text, cli_processor *p)
{
    *p = (cli_processor){.cut = strdup(text)};
    if (!p->cut) {
        return cli_fail("out of memory");
    }
    char *names = p->cut + (cli_processor_names(text) - text);
    char *params = strchr(names, ':');
    int wrong = 0;
    if (params) {
        *params++ = 0;
    }
    while (names && !wrong) {
        wrong = search_first(option, strsep(&names, "+"));
    }
    while (params && !wrong) {
        const char *param = strsep(&params, ",");
        if (strncmp(param, inner, strlen(inner)) == 0) {
            wrong = search_first(option, param + strlen(inner));
        }
    }
    return wrong;
}

/* Writes the n characters of a name, or the id of the file that they name. */
static int write_id(attn_registry *registry, bool op, const char *name, size_t n, FILE *to)
{
    char path[PATH_MAX];
    const char *id = path;
    if (n >= sizeof path) {
        return cli_misuse("--%s: a name of %zu characters", option, n);
    }
    memcpy(path, name, n);
    path[n] = 0;
    int wrong = id_of(registry, option, op, &id);
    (void)fputs(id, to);
    return wrong;
}

static int write_ids(attn_registry *registry, const char *text, FILE *to)
{
    const char *at = cli_processor_names(text);
    int wrong = 0;
    (void)fwrite(text, 1, (size_t)(at - text), to);
    for (char before = 0; !wrong && before != ':';) {
        size_t n = strcspn(at, "+:");
        wrong = write_id(registry, false, at, n, to);
        at += n;
        if (!*at) {
            return wrong;
        }
        before = *at++;
        (void)fputc(before, to);
    }
    while (!wrong && *at) {
        const size_t n = strcspn(at, ","), head = strlen(inner);
        if (n > head && strncmp(at, inner, head) == 0) {
            (void)fputs(inner, to);
            wrong = write_id(registry, true, at + head, n - head, to);
        } else {
            (void)fwrite(at, 1, n, to);
        }
        at += n;
        if (*at) {
            (void)fputc(*at++, to);
        }
    }
    return wrong;
}

int cli_processor_of_files(attn_registry *registry, const char **text, cli_processor *p)
{
    size_t bytes = 0;
    FILE *to = open_memstream(&p->ids, &bytes);
    if (!to) {
        return cli_fail("out of memory");
    }
    int wrong = write_ids(registry, *text, to);
    if (fclose(to) != 0 && !wrong) {
        wrong = cli_fail("out of memory");
    }
    if (!wrong) {
        *text = p->ids;
    }
    return wrong;
}

int cli_processor_known(attn_registry *registry, const char *names, const char *text)
{
    char one[128];
    for (const char *name = names; name;) {
        const char *plus = strchr(name, '+');
        size_t n = plus ? (size_t)(plus - name) : strlen(name);
        ATTN_ERROR_ON(err, 1280);
        attn_name found = {.size = sizeof found};
        if (!n || n >= sizeof one) {
            return cli_misuse("--processor %s: expected a processor's name", text);
        }
        memcpy(one, name, n);
        one[n] = 0;
        if (attn_name_find_in(registry, one, ATTN_NAME_PROCESSORS, &found, &err)) {
            return cli_misuse("--processor %s: %s", text, err.text);
        }
        if (!found.processor) {
            return cli_misuse("--processor %s: %s is an op, which --op takes", text, one);
        }
        name = plus ? plus + 1 : NULL;
    }
    return 0;
}

void cli_processor_free(cli_processor *p)
{
    free(p->cut);
    free(p->ids);
    *p = (cli_processor){0};
}
