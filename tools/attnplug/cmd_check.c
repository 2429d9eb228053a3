/* cmd_check.c: attnplug check FILE.so: is this plugin fit to ship? */
#include "check/check.h"
#include "cli.h"
#include "commands.h"

#include <stdio.h>
#include <string.h>

enum { MAX_RESULTS = 48 };

static const char *const file_tests[][2] = {
    {"head", "the plain bytes that a loader reads; stack, relocations, RUNPATH"},
    {"exports", "the contract's symbols and no others"},
    {"imports", "libc, libm and the vendor's own runtime; nothing of a host or framework"},
    {"glibc", "the oldest glibc that it runs with"}};
enum { FILE_TESTS = sizeof file_tests / sizeof *file_tests };

static int list(void)
{
    for (size_t i = 0; i < FILE_TESTS; i++)
        printf("file       %-11s %s\n", file_tests[i][0], file_tests[i][1]);
    for (const struct test *t = op_tests; t->name; t++)
        printf("op         %-11s %s\n", t->name, t->what);
    for (const struct test *t = layer_tests; t->name; t++)
        printf("processor  %-11s %s\n", t->name, t->what);
    return 0;
}

static bool is_file_test(const char *name)
{
    bool found = !strcmp(name, "file");
    for (size_t i = 0; i < FILE_TESTS; i++)
        found |= !strcmp(name, file_tests[i][0]);
    return found;
}

static bool is_test(const struct test *tests, const char *name)
{
    while (tests->name && strcmp(tests->name, name) != 0)
        tests++;
    return tests->name != NULL;
}

static int count(const struct test *tests)
{
    int n = 0;
    while (tests[n].name)
        n++;
    return n;
}

/* A misspelt test must not pass. */
static int only_check(const char *only, const struct heads *heads)
{
    const bool of_op = only && is_test(op_tests, only);
    const bool of_layer = only && is_test(layer_tests, only);
    if (!only || is_file_test(only) || (of_op && heads->has_op) ||
        (of_layer && heads->has_processor))
        return 0;
    if (of_op || of_layer)
        return cli_misuse("--test %s: a test of %s, which this file has none of", only,
                          of_op ? "ops" : "processors");
    return cli_misuse("--test %s: no such test; attnplug check --list has them all", only);
}

static void run_all(const struct check_options *o, const struct test *tests, int seconds,
                    struct result *results, int *n)
{
    for (const struct test *t = tests; t->name && *n < MAX_RESULTS; t++)
        if (!o->only || !strcmp(o->only, t->name))
            run_child(o, t, seconds, &results[(*n)++]);
}

/* Where plain calls have wrong numbers, these repeat it case by case. */
static void collapse(struct result *results, int n)
{
    bool plain = false;
    for (int i = 0; i < n; i++)
        plain |= !strcmp(results[i].name, "plain") && results[i].numeric;
    for (int i = 0; i < n && plain; i++) {
        struct result *r = &results[i];
        const bool repeats = !strcmp(r->name, "replay") || !strcmp(r->name, "threads");
        if (repeats && r->failed && r->numeric == r->failed) {
            (void)snprintf(r->message, sizeof r->message, "wrong as in plain");
            r->first = -1;
        }
    }
}

/* The results of --test of the file alone. */
static int keep_file_test(const char *only, struct result *results, int n)
{
    int kept = 0;
    for (int i = 0; i < n; i++)
        if (!only || !strcmp(only, "file") || !strcmp(only, results[i].name))
            results[kept++] = results[i];
    return kept;
}

/* Where every test of the plugin's code was passed over: why; NULL where one ran.  *fault: its head
 * promises a CPU, and its create refuses this one.  A GPU or its library may be missing. */
static const char *nothing_ran(const struct check_options *o, const struct heads *heads,
                               const struct result *code, int n, bool *fault)
{
    const uint64_t devices = (heads->has_op ? heads->op.devices : 0) |
                             (heads->has_processor ? heads->processor.devices : 0);
    for (int i = 0; i < n; i++)
        if (code[i].verdict != VERDICT_SKIP)
            return NULL;
    const bool promised = devices >> o->device.type & 1;
    *fault = n && promised && o->device.type == ATTN_DEVICE_CPU;
    return !n         ? NULL
           : promised ? "nothing of it could be run here"
                      : "only its file was looked at: its head is not for this device";
}

static int check_file(const struct check_options *o, int seconds)
{
    struct result results[MAX_RESULTS];
    struct heads heads;
    int n = 0, failed = 0, bad = 0;
    static_tests(o, &heads, results, &n);
    for (int i = 0; i < n; i++)
        bad |= results[i].verdict == VERDICT_FAIL && !strcmp(results[i].name, "head");
    const int wrong = bad ? 0 : only_check(o->only, &heads);
    if (wrong)
        return wrong;
    const int n_all =
        n + (heads.has_op ? count(op_tests) : 0) + (heads.has_processor ? count(layer_tests) : 0);
    if (!bad)
        n = keep_file_test(o->only, results, n);
    const int n_file = n;
    if (!bad && heads.has_op)
        run_all(o, op_tests, seconds, results, &n);
    if (!bad && heads.has_processor && o->device.type != ATTN_DEVICE_CPU)
        results[n++] = (struct result){.name = "layers",
                                       .verdict = VERDICT_SKIP,
                                       .first = -1,
                                       .worst_case = -1,
                                       .message = "processors are checked on a CPU"};
    else if (!bad && heads.has_processor)
        run_all(o, layer_tests, seconds, results, &n);
    collapse(results, n);
    for (int i = 0; i < n; i++)
        failed |=
            results[i].verdict == VERDICT_FAIL || (o->only && results[i].verdict == VERDICT_NONE);
    bool fault = false;
    const char *unseen = nothing_ran(o, &heads, results + n_file, n - n_file, &fault);
    report(o, heads.has_op ? &heads.op : (heads.has_processor ? &heads.processor : NULL), results,
           n, n_all, failed ? NULL : unseen);
    return n == 0 || bad ? 1 : failed || fault;
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
        {"test", CLI_TEXT, &test, "NAME",
         "one test alone (\"file\": those of the file; --list has the names)"},
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
