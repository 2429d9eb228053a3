/* attnplug: looks at attention plugins, runs them, and makes pictures with them.
 *
 * Each subcommand is a file cmd_<name>.c; commands.h lists them; cli.h is what they share. */
#include "cli.h"
#include "commands.h"
#include "machine.h"

#include "attn_host.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    const char *name, *summary;
    int (*run)(int argc, char **argv);
} command;

#define ROW(name, summary) {#name, summary, cmd_##name},
static const command commands[] = {COMMANDS(ROW)};
#undef ROW
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void print_help(FILE *to)
{
    (void)fprintf(to, "usage: attnplug COMMAND [OPTIONS]\n\n");
    for (int i = 0; i < N_COMMANDS; i++) {
        (void)fprintf(to, "  %-8s %s\n", commands[i].name, commands[i].summary);
    }
    (void)fprintf(
        to, "\n"
            "attnplug COMMAND --help tells more; attnplug --version tells what was found on this\n"
            "machine.\n"
            "Exit: 0 done, 1 the work failed or a check found a fault, 2 wrong usage.\n");
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stderr);
        return CLI_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        print_help(stdout);
        return cli_finish(CLI_OK);
    }
    if (strcmp(argv[1], "--man") == 0) {
        cli_man_overview();
        return cli_finish(CLI_OK);
    }
    if (strcmp(argv[1], "--version") == 0) {
        (void)printf("attnplug %s\n", attn_host_version());
        machine_print();
        return cli_finish(CLI_OK);
    }
    for (int i = 0; i < N_COMMANDS; i++) {
        if (strcmp(argv[1], commands[i].name) == 0) {
            return cli_finish(commands[i].run(argc - 1, argv + 1));
        }
    }
    (void)fprintf(stderr, "attnplug: no command \"%s\"; attnplug --help lists them\n", argv[1]);
    return CLI_USAGE;
}
