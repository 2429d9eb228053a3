/* cli_help.c: what --help and --man print, both from the table that the command line is read by. */
#include "cli.h"
#include "commands.h"

#include "attn_host.h"

#include <ctype.h>
#include <string.h>

enum { COLUMN = 32 };

/* -- help ------------------------------------------------------------------------------------- */

static void help_row(const cli_option *o)
{
    char left[64];
    if (!o->name) {
        (void)printf("\n%s:\n", o->help);
        return;
    }
    (void)snprintf(left, sizeof left, "  --%s%s%s", o->name, o->metavar ? " " : "",
                   o->metavar ? o->metavar : "");
    if (strlen(left) >= COLUMN) {
        (void)printf("%s\n%*s%s\n", left, COLUMN, "", o->help);
    } else {
        (void)printf("%-*s%s\n", COLUMN, left, o->help);
    }
}

void cli_help_print(const cli_command *command, const cli_option *common, size_t n_common)
{
    const cli_option *options = command->options;
    bool headed = command->n_options && !options[0].name;
    (void)printf("usage: %s\n\n%s\n%s", command->usage, command->about, headed ? "" : "\n");
    for (size_t i = 0; i < command->n_options; i++) {
        help_row(&options[i]);
    }
    if (headed) {
        help_row(&(const cli_option){.help = "Every command"});
    }
    for (size_t i = 0; i < n_common; i++) {
        help_row(&common[i]);
    }
    (void)printf("%-*s%s\n", COLUMN, "  --help", "show this");
}

/* -- manual pages in roff, man(7) -------------------------------------------------------------- */

enum { ROFF_COLUMNS = 72 };

/* Filled lines.  None is taken for a request, no character for an escape, and hyphens stay what
 * people type; an empty line ends a paragraph. */
static void roff_text(const char *text)
{
    size_t column = 0;
    for (const char *c = text; *c; c++) {
        bool space = *c == ' ';
        if (*c == '\n' || (space && column + strcspn(c + 1, " \n") > ROFF_COLUMNS)) {
            (void)fputs(*c == '\n' && c[1] == '\n' ? "\n.PP" : column ? "\n" : "", stdout);
            column = *c == '\n' && c[1] == '\n';
        } else if (*c == '\\' || *c == '-') {
            (void)fputs(*c == '-' ? "\\-" : "\\e", stdout);
            column += 2;
        } else if (column || !space) {
            (void)printf("%s%c", !column && (*c == '.' || *c == '\'') ? "\\&" : "", *c);
            column++;
        }
    }
}

/* `text` as it is, between two pieces of roff. */
static void roff_line(const char *before, const char *text, const char *after)
{
    (void)fputs(before, stdout);
    roff_text(text);
    (void)fputs(after, stdout);
}

static void roff_row(const cli_option *o)
{
    if (!o->name) {
        roff_line(".SS ", o->help, "\n");
        return;
    }
    roff_line(".TP\n\\fB\\-\\-", o->name, "\\fR");
    if (o->metavar) {
        roff_line(" \\fI", o->metavar, "\\fR");
    }
    roff_line("\n", o->help, "\n");
}

static void roff_head(const char *name, const char *summary)
{
    (void)fputs(".TH ", stdout);
    for (const char *c = name; *c; c++) {
        (void)putchar(toupper((unsigned char)*c));
    }
    (void)printf(" 1 " ATTNPLUG_DATE " \"attnplug %s\"\n.SH NAME\n", attn_host_version());
    roff_line("", name, " \\- ");
    roff_line("", summary, "\n");
}

static void roff_tail(const char *others)
{
    (void)puts(".SH EXIT STATUS\n"
               "0 done, 1 the work failed or a check found a fault,\n"
               "2 wrong usage, 130 interrupted.\n"
               ".SH SEE ALSO");
    (void)puts(others);
}

void cli_man_print(const cli_command *command, const cli_option *common, size_t n_common)
{
    char name[64];
    const char *word = command->usage + strlen("attnplug ");
    const char *summary = "";
    int n = (int)strcspn(word, " ");
#define FIND(command_name, text)                                                                   \
    if ((int)strlen(#command_name) == n && strncmp(#command_name, word, (size_t)n) == 0)           \
        summary = text;
    COMMANDS(FIND)
#undef FIND
    (void)snprintf(name, sizeof name, "attnplug-%.*s", n, word);
    roff_head(name, summary);
    roff_line(".SH SYNOPSIS\n", command->usage, "\n");
    roff_line(".SH DESCRIPTION\n", command->about, "\n");
    (void)puts(".SH OPTIONS");
    for (size_t i = 0; i < command->n_options; i++) {
        roff_row(&command->options[i]);
    }
    (void)puts(".SS Every command");
    for (size_t i = 0; i < n_common; i++) {
        roff_row(&common[i]);
    }
    roff_row(&(const cli_option){.name = "help", .help = "show the options"});
    roff_tail("\\fBattnplug\\fR(1)");
}

void cli_man_overview(void)
{
    roff_head("attnplug", "look at attention plugins, run them, and make pictures with them");
    (void)puts(".SH SYNOPSIS\n\\fBattnplug\\fR \\fICOMMAND\\fR [\\fIOPTIONS\\fR]\n"
               ".PP\n\\fBattnplug \\-\\-version\\fR\n.SH COMMANDS");
#define ROW(name, summary) roff_line(".TP\n\\fB" #name "\\fR\n", summary, "\n");
    COMMANDS(ROW)
#undef ROW
    (void)puts(".PP\nResults go to stdout, everything else to stderr.\n"
               ".SH ENVIRONMENT\n"
               ".TP\n\\fBATTNPLUG_PATH\\fR\nfolders of plugins, separated by colons,\n"
               "searched after \\fB\\-\\-plugin\\-path\\fR\n"
               ".TP\n\\fBATTNPLUG_OP\\fR\nthe op to take where none is named\n"
               ".TP\n\\fBATTNPLUG_PROBE\\fR\n1 tries each plugin in a child process first");
#define SEE(name, summary) "\\fBattnplug\\-" #name "\\fR(1)\n"
    roff_tail(COMMANDS(SEE));
#undef SEE
}
