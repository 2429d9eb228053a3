/* cmd_check.c: attnplug check FILE.so: is this plugin fit to ship? */
#include "check/check.h"
#include "cli.h"
#include "commands.h"

#include <stdio.h>
#include <string.h>

enum { MAX_RESULTS = 48 };

static int list(void)
{
    static const char *const file_tests[][2] = {
        {"head", "the plain bytes that a loader reads; stack, relocations, RUNPATH"},
        {"exports", "the contract's symbols and no others"},
        {"imports", "libc, libm and the vendor's own runtime; nothing of a host or framework"},
        {"glibc", "the oldest glibc that it runs with"}};
    for (size_t i = 0; i < sizeof file_tests / sizeof *file_tests; i++)
        printf("file       %-11s %s\n", file_tests[i][0], file_tests[i][1]);
    for (const struct test *t = op_tests; t->name; t++)
        printf("op         %-11s %s\n", t->name, t->what);
    for (const struct test *t = layer_tests; t->name; t++)
        printf("processor  %-11s %s\n", t->name, t->what);
    return 0;
}

static void run_all(const struct check_options *o, const struct test *tests, int seconds,
                    struct result *results, int *n)
{
    for (const struct test *t = tests; t->name && *n < MAX_RESULTS; t++)
        if (!o->only || !strcmp(o->only, t->name))
            run_child(o, t, seconds, &results[(*n)++]);
}

static int check_file(const struct check_options *o, int seconds)
{
    struct result results[MAX_RESULTS];
    struct heads heads;
    int n = 0, failed = 0, bad = 0;
    static_tests(o, &heads, results, &n);
    for (int i = 0; i < n; i++)
        bad |= results[i].verdict == VERDICT_FAIL && !strcmp(results[i].name, "head");
    if (o->only && strcmp(o->only, "file") != 0)
        n = 0;
    if (!bad && heads.has_op)
        run_all(o, op_tests, seconds, results, &n);
    if (!bad && heads.has_processor && o->device.type != ATTN_DEVICE_CPU)
        results[n++] = (struct result){.name = "layers",
                                       .verdict = VERDICT_SKIP,
                                       .first = -1,
                                       .message = "processors are checked on a CPU"};
    else if (!bad && heads.has_processor)
        run_all(o, layer_tests, seconds, results, &n);
    for (int i = 0; i < n; i++)
        failed |= results[i].verdict == VERDICT_FAIL;
    report(o, heads.has_op ? &heads.op : (heads.has_processor ? &heads.processor : NULL), results,
           n);
    return n == 0 || bad ? 1 : failed;
}

int cmd_check(int argc, char **argv)
{
    bool quick = false, json = false, names = false;
    const char *test = NULL, *on = "cpu";
    attn_device device;
    int64_t case_index = -1, cases = 0, seed = 1, seconds = 0;
    const cli_option options[] = {
        {"quick", CLI_FLAG, &quick, NULL, "about ten seconds: fewer random calls"},
        {"json", CLI_FLAG, &json, NULL, "a report for programs"},
        {"test", CLI_TEXT, &test, "NAME", "one test alone (\"file\": those of the file)"},
        {"case", CLI_INT, &case_index, "N", "one case of it"},
        {"cases", CLI_INT, &cases, "N", "that many random calls a test"},
        {"seed", CLI_INT, &seed, "N", "another sequence of random calls (1)"},
        {"timeout", CLI_INT, &seconds, "N", "seconds that a test may take (120; quick 30)"},
        {"device", CLI_TEXT, &on, "D", "where the op runs: cpu, cuda, cuda:1 (default cpu)"},
        {"list", CLI_FLAG, &names, NULL, "the tests and what they look at"},
    };
    const cli_command command = {"attnplug check [OPTIONS] FILE.so",
                                 "Runs a plugin through every rule of the contract, each test in a "
                                 "child process: is it fit to ship?",
                                 options,
                                 sizeof options / sizeof *options,
                                 0,
                                 1};
    int first, status = cli_parse(&command, argc, argv, &first);
    if (status != CLI_GO)
        return status;
    if (names)
        return list();
    if (first + 1 != argc)
        return cli_misuse("check: expected one FILE.so");
    if (!cli_device(on, &device))
        return CLI_USAGE;
    if (case_index < -1 || cases < 0 || seed < 0 || seconds < 0)
        return cli_misuse("check: numbers are not negative");
    const struct check_options o = {argv[first], test, case_index, (uint64_t)seed, cases,
                                    quick,       json, on,         device};
    return check_file(&o, seconds ? (int)seconds : (quick ? 30 : 120));
}
