/* cmd_check.c: attnplug check FILE.so: is this plugin fit to ship? */
#include "check/check.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int cmd_check(int argc, char **argv);

enum { MAX_RESULTS = 48 };

static void usage(FILE *to)
{
    fputs("Usage: attnplug check [OPTION]... FILE.so\n"
          "Runs a plugin through every rule of the contract, each test in a child process.\n\n"
          "  --quick        about ten seconds: fewer random calls\n"
          "  --json         a report for programs\n"
          "  --test NAME    one test alone\n"
          "  --case N       one case of it\n"
          "  --cases N      that many random calls a test\n"
          "  --seed N       another sequence of random calls (default 1)\n"
          "  --timeout N    seconds that a test may take (default 120, quick 20)\n"
          "  --list         the tests and what they look at\n"
          "  --help\n\n"
          "Exit status: 0 fit to ship, 1 a test failed, 2 wrong usage.\n",
          to);
}

static int number(const char *text, int64_t *out)
{
    char *end;
    long long n = strtoll(text, &end, 10);
    *out = n;
    return *text && !*end && n >= 0;
}

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
    if (!bad && heads.has_processor)
        run_all(o, layer_tests, seconds, results, &n);
    for (int i = 0; i < n; i++)
        failed |= results[i].verdict == VERDICT_FAIL;
    report(o, heads.has_op ? &heads.op : (heads.has_processor ? &heads.processor : NULL), results,
           n);
    return n == 0 || bad ? 1 : failed;
}

int cmd_check(int argc, char **argv)
{
    enum { QUICK = 256, JSON, TEST, CASE, CASES, SEED, TIMEOUT, LIST };
    static const struct option options[] = {{"quick", no_argument, NULL, QUICK},
                                            {"json", no_argument, NULL, JSON},
                                            {"test", required_argument, NULL, TEST},
                                            {"case", required_argument, NULL, CASE},
                                            {"cases", required_argument, NULL, CASES},
                                            {"seed", required_argument, NULL, SEED},
                                            {"timeout", required_argument, NULL, TIMEOUT},
                                            {"list", no_argument, NULL, LIST},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    struct check_options o = {NULL, NULL, -1, 1, 0, 0, 0};
    int64_t seconds = 0, seed = 1;
    int option, fine = 1;
    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1)
        switch (option) {
        case QUICK:
            o.quick = 1;
            break;
        case JSON:
            o.json = 1;
            break;
        case TEST:
            o.only = optarg;
            break;
        case CASE:
            fine &= number(optarg, &o.case_index);
            break;
        case CASES:
            fine &= number(optarg, &o.cases);
            break;
        case SEED:
            fine &= number(optarg, &seed);
            break;
        case TIMEOUT:
            fine &= number(optarg, &seconds);
            break;
        case LIST:
            return list();
        case 'h':
            usage(stdout);
            return 0;
        default:
            return 2;
        }
    if (!fine || optind + 1 != argc) {
        fprintf(stderr, "attnplug check: %s\n",
                fine ? "expected one FILE.so" : "expected a number");
        return 2;
    }
    o.path = argv[optind];
    o.seed = (uint64_t)seed;
    return check_file(&o, seconds ? (int)seconds : (o.quick ? 20 : 120));
}
