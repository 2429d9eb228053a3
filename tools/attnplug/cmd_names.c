/* attnplug names: every name and what it stands for. */
#include "cli.h"
#include "commands.h"

#include "attn_router.h"

#include <string.h>

static void print_json(const attn_name *name, const char *path, bool first)
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
    if (path) {
        (void)fputs(", \"path\": ", stdout);
        cli_json_text(stdout, path);
    }
    (void)putchar('}');
}

static void print_line(const attn_name *name)
{
    int width = name->note[0] ? 17 : 0;
    (void)printf("%-38s %-22s %-*s%s%s\n", name->name, name->processor ? name->processor : "-",
                 width, name->op, name->note[0] ? " " : "", name->note);
}

/* Ids of usable plugins: ours have names above, and are left out of the table. */
static void print_found(attn_registry *registry, bool json)
{
    static const char own[] = "org.attnplug.";
    attn_file_info info = {.size = sizeof info};
    bool headed = json;
    for (uint32_t i = 0; attn_registry_file(registry, i, &info) == ATTN_OK; i++) {
        const attn_head *head = info.op ? info.op : info.processor;
        attn_name name = {.size = sizeof name};
        if (info.verdict != ATTN_VERDICT_OK || !head ||
            attn_name_find_in(registry, head->id, 0, &name, NULL) != ATTN_OK) {
            continue;
        }
        name.name = head->id;
        if (json) {
            print_json(&name, info.path, false);
        } else if (strncmp(head->id, own, sizeof own - 1) != 0 ||
                   strchr(head->id + sizeof own - 1, '.')) {
            (void)printf("%s", headed ? "" : "\nFOUND IN FOLDERS (attnplug list says which)\n");
            headed = true;
            print_line(&name);
        }
    }
}

int cmd_names(int argc, char **argv)
{
    bool json = false;
    int first = 0;
    const cli_option options[] = {{"json", CLI_FLAG, &json, NULL, "for programs to read"}};
    const cli_command command = {
        "attnplug names [--json]",
        "Every name that --processor and --op take: the processor and the op that it stands for.\n"
        "A name without a processor (-) is one of an op alone.  Below them the ids of other\n"
        "people's plugins that were found; the last part of an id will do where it is the only\n"
        "one.",
        options,
        1,
        0,
        0};
    int status = cli_parse(&command, argc, argv, &first);
    if (status != CLI_GO) {
        return status;
    }
    attn_registry *registry = NULL;
    attn_name name = {.size = sizeof name};
    status = cli_registry(&registry);
    if (status) {
        return status;
    }
    if (json) {
        (void)putchar('[');
    } else {
        (void)printf("%-38s %-22s %-17s %s\n", "NAME", "PROCESSOR", "OP", "NOTE");
    }
    for (uint32_t i = 0; attn_name_get(i, &name) == ATTN_OK; i++) {
        json ? print_json(&name, NULL, i == 0) : print_line(&name);
    }
    print_found(registry, json);
    (void)fputs(json ? "\n]\n" : "", stdout);
    attn_registry_close(registry);
    return CLI_OK;
}
