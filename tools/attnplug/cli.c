/* cli.c: option parsing by table, and errors. */
#include "cli.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { HELP = CLI_MAX_OPTIONS, MAN };

cli_common cli_global;

static const cli_option common[] = {
    {"plugin-path", CLI_TEXTS, &cli_global.plugin_paths, "DIR",
     "look for plugins here first; may be repeated"},
    {"trust-all", CLI_FLAG, &cli_global.trust_all, NULL,
     "take plugins that somebody else may have written to"},
    {"verbose", CLI_FLAG, &cli_global.verbose, NULL, "say more on stderr"},
};
enum { N_COMMON = sizeof common / sizeof *common };

/* Texts quote names out of files that somebody else made: no byte of theirs may steer a terminal.
 * C1 controls are two bytes in UTF-8. */
static void put_quietly(const char *text)
{
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        const bool c1 = *c == 0xC2 && c[1] >= 0x80 && c[1] < 0xA0;
        const bool steers = (*c < 0x20 && *c != '\n' && *c != '\t') || *c == 0x7F || c1;
        (void)fputc(steers ? '?' : *c, stderr);
        c += c1;
    }
}

static void complain(const char *format, va_list args)
{
    char text[4096];
    (void)fflush(stdout);
    (void)vsnprintf(text, sizeof text, format, args);
    (void)fputs("attnplug: ", stderr);
    put_quietly(text);
    (void)fputc('\n', stderr);
}

int cli_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    complain(format, args);
    va_end(args);
    return CLI_FAILED;
}

int cli_misuse(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    complain(format, args);
    va_end(args);
    return CLI_USAGE;
}

void cli_log(void *ctx, int32_t level, const char *text)
{
    (void)ctx;
    if (level <= 1 || cli_global.verbose) {
        (void)fprintf(stderr, "attnplug: %s", level == 1 ? "warning: " : "");
        put_quietly(text);
        (void)fputc('\n', stderr);
    }
}

int cli_finish(int status)
{
    if (fflush(stdout) != 0 || ferror(stdout)) {
        (void)fprintf(stderr, "attnplug: writing to stdout: %s\n", strerror(errno));
        return status == CLI_OK ? CLI_FAILED : status;
    }
    return status;
}

static bool take_number(const cli_option *o, const char *text)
{
    char *end = NULL;
    errno = 0;
    if (o->kind == CLI_INT) {
        long long i = strtoll(text, &end, 10);
        if (errno || end == text || *end) {
            return false;
        }
        *(int64_t *)o->value = i;
        return true;
    }
    double f = strtod(text, &end);
    if (errno || end == text || *end || !isfinite(f)) {
        return false;
    }
    *(double *)o->value = f;
    return true;
}

static int take(const cli_option *o, const char *text)
{
    cli_texts *texts = o->value;
    switch (o->kind) {
    case CLI_FLAG:
        *(bool *)o->value = true;
        return CLI_GO;
    case CLI_TEXT:
        *(const char **)o->value = text;
        return CLI_GO;
    case CLI_TEXTS:
        if (texts->n == CLI_MAX_TEXTS) {
            return cli_misuse("--%s: more than %d times", o->name, CLI_MAX_TEXTS);
        }
        texts->items[texts->n++] = text;
        return CLI_GO;
    default:
        return take_number(o, text) ? CLI_GO
                                    : cli_misuse("--%s: \"%s\", expected a%s number", o->name, text,
                                                 o->kind == CLI_INT ? " whole" : "");
    }
}

/* Rows for getopt_long; `val` is the option's place, so that one switch serves all. */
static int fill_table(const cli_command *command, struct option *table, const cli_option **rows)
{
    int n = 0;
    for (size_t i = 0; i < command->n_options; i++) {
        if (command->options[i].name) {
            rows[n++] = &command->options[i];
        }
    }
    for (int i = 0; i < N_COMMON; i++) {
        rows[n++] = &common[i];
    }
    for (int i = 0; i < n; i++) {
        table[i] = (struct option){rows[i]->name,
                                   rows[i]->metavar ? required_argument : no_argument, NULL, i};
    }
    table[n] = (struct option){"help", no_argument, NULL, HELP};
    table[n + 1] = (struct option){"man", no_argument, NULL, MAN};
    table[n + 2] = (struct option){0};
    return n;
}

int cli_parse(const cli_command *command, int argc, char **argv, int *first)
{
    struct option table[CLI_MAX_OPTIONS + 3];
    const cli_option *rows[CLI_MAX_OPTIONS];
    if (command->n_options + N_COMMON > CLI_MAX_OPTIONS) {
        return cli_fail("more than %d options", CLI_MAX_OPTIONS);
    }
    int n = fill_table(command, table, rows);
    optind = 1;
    opterr = 0;
    for (;;) {
        int at = optind;
        int got = getopt_long(argc, argv, ":", table, NULL);
        if (got == -1) {
            break;
        }
        if (got == HELP || got == MAN) {
            (got == HELP ? cli_help_print : cli_man_print)(command, common, N_COMMON);
            return CLI_OK;
        }
        if (got == ':') {
            return cli_misuse("%s: its value is missing; %s", argv[optind - 1], command->usage);
        }
        if (got < 0 || got >= n) {
            return cli_misuse("%s: no such option; %s", argv[at < argc ? at : argc - 1],
                              command->usage);
        }
        int status = take(rows[got], optarg);
        if (status != CLI_GO) {
            return status;
        }
    }
    int operands = argc - optind;
    if (operands < command->min_operands ||
        (command->max_operands >= 0 && operands > command->max_operands)) {
        return cli_misuse("%s%s; usage: %s",
                          operands < command->min_operands ? "something is missing"
                                                           : "not expected: ",
                          operands < command->min_operands ? "" : argv[argc - 1], command->usage);
    }
    *first = optind;
    return CLI_GO;
}
