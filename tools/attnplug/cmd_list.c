/* attnplug list: every plugin file seen, with its verdict. */
#include "cli.h"
#include "commands.h"

static const char *kind_of(const attn_file_info *info)
{
    return info->op && info->processor ? "op+processor"
           : info->op                  ? "op"
           : info->processor           ? "processor"
                                       : "";
}

static void print_json(const attn_file_info *info, bool first)
{
    const attn_head *head = info->op ? info->op : info->processor;
    const char *const fields[][2] = {
        {"path", info->path},         {"verdict", attn_verdict_name(info->verdict)},
        {"reason", info->reason},     {"kind", kind_of(info)},
        {"id", head ? head->id : ""}, {"version", head ? head->version : ""},
    };
    (void)printf("%s\n  {", first ? "" : ",");
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        (void)printf("%s\"%s\": ", i ? ", " : "", fields[i][0]);
        cli_json_text(stdout, fields[i][1]);
    }
    (void)putchar('}');
}

static void print_line(const attn_file_info *info)
{
    const attn_head *head = info->op ? info->op : info->processor;
    char devices[128] = "", dtypes[64] = "";
    if (!head) {
        (void)printf("%-11s %s\n            %s\n", attn_verdict_name(info->verdict), info->path,
                     info->reason);
        return;
    }
    cli_devices_text(head->devices, devices, sizeof devices);
    cli_dtypes_text(head->dtypes, dtypes, sizeof dtypes);
    (void)printf("%-11s %-9s %-30s %-8s %-13s %-14s %s\n", attn_verdict_name(info->verdict),
                 kind_of(info), head->id, head->version, devices, dtypes, info->path);
    if (info->reason[0]) {
        (void)printf("            %s\n", info->reason);
    }
}

int cmd_list(int argc, char **argv)
{
    bool json = false;
    int first = 0;
    const cli_option options[] = {{"json", CLI_FLAG, &json, NULL, "for programs to read"}};
    const cli_command command = {
        "attnplug list [--json]",
        "Every plugin file in the folders that are searched, in their order, with its verdict "
        "and,\n"
        "where it was refused, why.  Runs no code of any of them.  Folders: --plugin-path,\n"
        "$ATTNPLUG_PATH, ${XDG_DATA_HOME:-~/.local/share}/attnplug/plugins, the installed one.\n"
        "ATTNPLUG_PROBE=1 also opens each in a child process.",
        options,
        1,
        0,
        1};
    int status = cli_parse(&command, argc, argv, &first);
    if (status != CLI_GO) {
        return status;
    }
    if (first < argc) {
        return cli_misuse("list: %s: expected no file; attnplug check --test file looks at one",
                          argv[first]);
    }
    attn_registry *registry = NULL;
    status = cli_registry(&registry);
    if (status) {
        return status;
    }
    attn_file_info info = {.size = sizeof info};
    (void)fputs(json ? "[" : "", stdout);
    for (uint32_t i = 0; attn_registry_file(registry, i, &info) == ATTN_OK; i++) {
        if (json) {
            print_json(&info, i == 0);
        } else {
            print_line(&info);
        }
    }
    (void)fputs(json ? "\n]\n" : "", stdout);
    attn_registry_close(registry);
    return CLI_OK;
}
