/* report.c: what came out. */
#include "../cli.h"
#include "check.h"

#include <stdio.h>
#include <string.h>

static const char *word(enum verdict v)
{
    return v == VERDICT_PASS   ? "pass"
           : v == VERDICT_FAIL ? "FAIL"
           : v == VERDICT_SKIP ? "skip"
                               : "none";
}

enum { SHOWN = 12 }; /* failing cases named in the text; JSON has all that are known */

/* A path as a shell takes it for one word. */
static void quoted(const char *path, char *out, size_t bytes)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "/._-+=:,@%";
    size_t n = 0;
    if (path[strspn(path, plain)] == 0) {
        (void)snprintf(out, bytes, "%s", path);
        return;
    }
    n += (size_t)snprintf(out, bytes, "'");
    for (; *path && n + 6 < bytes; path++) {
        const char one[2] = {*path, 0};
        n += (size_t)snprintf(out + n, bytes - n, "%s", *path == '\'' ? "'\\''" : one);
    }
    (void)snprintf(out + n, bytes - n, "'");
}

static void reproduce(const struct check_options *o, const struct result *r, int64_t index,
                      char *out, size_t bytes)
{
    const int cpu = o->device.type == ATTN_DEVICE_CPU;
    char path[4096];
    quoted(o->path, path, sizeof path);
    (void)snprintf(out, bytes, "attnplug check %s%s%s --test %s --seed %llu --case %lld", path,
                   cpu ? "" : " --device ", cpu ? "" : o->device_text, r->name,
                   (unsigned long long)o->seed, (long long)index);
}

static int64_t known(const struct result *r)
{
    return r->n_failing < CHECK_FAILING ? r->n_failing : CHECK_FAILING;
}

/* The first failing case in words, and a command for each. */
static void failing_json(const struct check_options *o, const struct result *r)
{
    char again[4352];
    printf(", \"case\": ");
    cli_json_text(stdout, r->case_text);
    reproduce(o, r, r->first, again, sizeof again);
    printf(", \"reproduce\": ");
    cli_json_text(stdout, again);
    printf(", \"failing_cases\": %lld, \"failing\": [", (long long)r->n_failing);
    for (int64_t i = 0; i < known(r); i++) {
        reproduce(o, r, r->failing[i], again, sizeof again);
        printf("%s{\"case\": %lld, \"reproduce\": ", i ? ", " : "", (long long)r->failing[i]);
        cli_json_text(stdout, again);
        putchar('}');
    }
    putchar(']');
}

static void failing_text(const struct check_options *o, const struct result *r)
{
    char again[4352];
    reproduce(o, r, r->first, again, sizeof again);
    printf("        %lld case%s failed; the first: %s\n        again: %s\n",
           (long long)r->n_failing, r->n_failing == 1 ? "" : "s", r->case_text, again);
    if (r->n_failing < 2)
        return;
    printf("        the others, one --case each:");
    for (int64_t i = 1; i < known(r) && i <= SHOWN; i++)
        printf("%s %lld", i > 1 ? "," : "", (long long)r->failing[i]);
    if (r->n_failing > SHOWN + 1)
        printf(" and %lld more (--json)", (long long)r->n_failing - SHOWN - 1);
    putchar('\n');
}

static void report_json(const struct check_options *o, const attn_head *head,
                        const struct result *r, int n, const char *unseen)
{
    printf("{\"path\": ");
    cli_json_text(stdout, o->path);
    printf(", \"id\": ");
    cli_json_text(stdout, head ? head->id : "");
    printf(", \"version\": ");
    cli_json_text(stdout, head ? head->version : "");
    printf(", \"seed\": %llu, \"tests\": [", (unsigned long long)o->seed);
    for (int i = 0; i < n; i++) {
        printf("%s\n  {\"test\": \"%s\", \"verdict\": \"%s\", \"cases\": %lld, \"taken\": %lld, "
               "\"failed\": %lld, "
               "\"worst\": %.3g, \"worst_case\": %lld, \"seconds\": %.3f, \"message\": ",
               i ? "," : "", r[i].name, word(r[i].verdict), (long long)r[i].cases,
               (long long)r[i].taken, (long long)r[i].failed, r[i].worst,
               (long long)r[i].worst_case, r[i].seconds);
        cli_json_text(stdout, r[i].message);
        if (r[i].verdict == VERDICT_FAIL && r[i].first >= 0)
            failing_json(o, &r[i]);
        printf("}");
    }
    printf("\n], \"unseen\": ");
    cli_json_text(stdout, unseen ? unseen : "");
    printf("}\n");
}

/* "77 % taken", and in words what a rounded share would hide. */
static void share_text(const struct result *r)
{
    const double share = 100.0 * (double)r->taken / (double)r->cases;
    printf(" %6lld calls, ", (long long)r->cases);
    if (!r->taken)
        printf("none taken");
    else if (share < 1)
        printf("%lld of them taken", (long long)r->taken);
    else
        printf("%3.0f %% taken", share);
}

static void line_text(const struct result *r)
{
    const char *before = "";
    printf("  %s  %-11s", word(r->verdict), r->name);
    if (r->cases > 1) {
        share_text(r);
        before = ",";
    }
    if (r->worst > 0) {
        printf("%s error at most %.2g of the bound", before, r->worst);
        before = ",";
        if (r->worst_case >= 0)
            printf(" (case %lld)", (long long)r->worst_case);
    }
    if (r->seconds >= 0.05)
        printf("%s %.1f s", before, r->seconds);
    putchar('\n');
}

/* The last line: what all of it means. */
static void verdict_text(const struct check_options *o, const struct result *r, int n, int n_all,
                         const char *nothing)
{
    const char *before = " (none of its calls was taken in: ";
    int failed = 0, unseen = 0;
    for (int i = 0; i < n; i++) {
        failed += r[i].verdict == VERDICT_FAIL;
        unseen += r[i].verdict == VERDICT_NONE;
    }
    if (o->only) {
        printf("%s; this was %d test%s of %d\n",
               failed              ? "failed"
               : unseen || nothing ? "nothing was seen"
                                   : "passed",
               n, n == 1 ? "" : "s", n_all);
        return;
    }
    if (nothing) {
        printf("%s\n", nothing);
        return;
    }
    printf("%s", failed ? "NOT fit to ship" : "fit to ship");
    for (int i = 0; i < n && unseen; i++)
        if (r[i].verdict == VERDICT_NONE) {
            printf("%s%s", before, r[i].name);
            before = ", ";
        }
    printf("%s\n", unseen ? ")" : "");
}

static void report_text(const struct check_options *o, const attn_head *head,
                        const struct result *r, int n, int n_all, const char *unseen)
{
    printf("%s:", o->path);
    if (head)
        printf(" %s %s, %s", head->id, head->version, head->summary);
    putchar('\n');
    for (int i = 0; i < n; i++) {
        line_text(&r[i]);
        if (r[i].message[0])
            printf("        %s\n", r[i].message);
        if (r[i].verdict == VERDICT_FAIL && r[i].first >= 0)
            failing_text(o, &r[i]);
    }
    verdict_text(o, r, n, n_all, unseen);
}

void report(const struct check_options *o, const attn_head *head, const struct result *results,
            int n, int n_all, const char *unseen)
{
    if (o->json)
        report_json(o, head, results, n, unseen);
    else
        report_text(o, head, results, n, n_all, unseen);
}
