/* attnplug names: every name and what it stands for. */
#include "cli.h"
#include "commands.h"

#include "attn_router.h"

static void print_json(const attn_name *name, bool first)
{
    (void)printf("%s\n  {\"name\": ", first ? "" : ",");
    cli_json_text(stdout, name->name);
    (void)fputs(", \"processor\": ", stdout);
    if (name->processor) {
        cli_json_text(stdout, name->processor);
    } else {
        (void)fputs("null", stdout);
    }
    (void)fputs(", \"op\": ", stdout);
    cli_json_text(stdout, name->op);
    (void)fputs(", \"note\": ", stdout);
    cli_json_text(stdout, name->note);
    (void)putchar('}');
}

int cmd_names(int argc, char **argv)
{
    bool json = false;
    int first = 0;
    const cli_option options[] = {{"json", CLI_FLAG, &json, NULL, "for programs to read"}};
    const cli_command command = {
        "attnplug names [--json]",
        "Every name that --processor and --op take: the processor and the op that it stands for.\n"
        "A name without a processor (-) is one of an op alone.",
        options,
        1,
        0,
        0};
    int status = cli_parse(&command, argc, argv, &first);
    if (status != CLI_GO) {
        return status;
    }
    attn_name name = {.size = sizeof name};
    if (json) {
        (void)putchar('[');
    } else {
        (void)printf("%-38s %-22s %-17s %s\n", "NAME", "PROCESSOR", "OP", "NOTE");
    }
    for (uint32_t i = 0; attn_name_get(i, &name) == ATTN_OK; i++) {
        if (json) {
            print_json(&name, i == 0);
        } else {
            int width = name.note[0] ? 17 : 0;
            (void)printf("%-38s %-22s %-*s%s%s\n", name.name, name.processor ? name.processor : "-",
                         width, name.op, name.note[0] ? " " : "", name.note);
        }
    }
    (void)fputs(json ? "\n]\n" : "", stdout);
    return CLI_OK;
}
