/* report.c: what came out. */
#include "check.h"

#include <stdio.h>
#include <string.h>

static const char *word(enum verdict v)
{
    return v == VERDICT_PASS ? "pass" : (v == VERDICT_FAIL ? "FAIL" : "skip");
}

static void json_text(const char *s)
{
    putchar('"');
    for (; *s; s++)
        if (*s == '"' || *s == '\\')
            printf("\\%c", *s);
        else if ((unsigned char)*s < 0x20)
            printf("\\u%04x", *s);
        else
            putchar(*s);
    putchar('"');
}

enum { SHOWN = 12 }; /* failing cases named in the text; JSON has all that are known */

static void reproduce(const struct check_options *o, const struct result *r, int64_t index,
                      char *out, size_t bytes)
{
    const int cpu = o->device.type == ATTN_DEVICE_CPU;
    (void)snprintf(out, bytes, "attnplug check %s%s%s --test %s --seed %llu --case %lld", o->path,
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
    char again[1024];
    printf(", \"case\": ");
    json_text(r->case_text);
    reproduce(o, r, r->first, again, sizeof again);
    printf(", \"reproduce\": ");
    json_text(again);
    printf(", \"failing_cases\": %lld, \"failing\": [", (long long)r->n_failing);
    for (int64_t i = 0; i < known(r); i++) {
        reproduce(o, r, r->failing[i], again, sizeof again);
        printf("%s{\"case\": %lld, \"reproduce\": ", i ? ", " : "", (long long)r->failing[i]);
        json_text(again);
        putchar('}');
    }
    putchar(']');
}

static void failing_text(const struct check_options *o, const struct result *r)
{
    char again[1024];
    reproduce(o, r, r->first, again, sizeof again);
    printf("        %lld case%s failed; the first: %s\n        again: %s\n",
           (long long)r->n_failing, r->n_failing == 1 ? "" : "s", r->case_text, again);
    if (r->n_failing < 2)
        return;
    printf("        likewise --case");
    for (int64_t i = 1; i < known(r) && i <= SHOWN; i++)
        printf(" %lld", (long long)r->failing[i]);
    if (r->n_failing > SHOWN + 1)
        printf(" and %lld more (--json)", (long long)r->n_failing - SHOWN - 1);
    putchar('\n');
}

static void report_json(const struct check_options *o, const attn_head *head,
                        const struct result *r, int n)
{
    printf("{\"path\": ");
    json_text(o->path);
    printf(", \"id\": ");
    json_text(head ? head->id : "");
    printf(", \"version\": ");
    json_text(head ? head->version : "");
    printf(", \"seed\": %llu, \"tests\": [", (unsigned long long)o->seed);
    for (int i = 0; i < n; i++) {
        printf("%s\n  {\"test\": \"%s\", \"verdict\": \"%s\", \"cases\": %lld, \"taken\": %lld, "
               "\"failed\": %lld, "
               "\"worst\": %.3g, \"seconds\": %.3f, \"message\": ",
               i ? "," : "", r[i].name, word(r[i].verdict), (long long)r[i].cases,
               (long long)r[i].taken, (long long)r[i].failed, r[i].worst, r[i].seconds);
        json_text(r[i].message);
        if (r[i].verdict == VERDICT_FAIL && r[i].first >= 0)
            failing_json(o, &r[i]);
        printf("}");
    }
    printf("\n]}\n");
}

static void report_text(const struct check_options *o, const attn_head *head,
                        const struct result *r, int n)
{
    int failed = 0;
    printf("%s: %s %s, %s\n", o->path, head ? head->id : "?", head ? head->version : "",
           head ? head->summary : "");
    for (int i = 0; i < n; i++) {
        failed += r[i].verdict == VERDICT_FAIL;
        printf("  %s  %-11s", word(r[i].verdict), r[i].name);
        if (r[i].cases > 1)
            printf(" %6lld calls, %3.0f %% taken", (long long)r[i].cases,
                   100.0 * (double)r[i].taken / (double)r[i].cases);
        if (r[i].worst > 0)
            printf(", error at most %.2g of the bound", r[i].worst);
        if (r[i].seconds >= 0.05)
            printf(", %.1f s", r[i].seconds);
        putchar('\n');
        if (r[i].message[0])
            printf("        %s\n", r[i].message);
        if (r[i].verdict == VERDICT_FAIL && r[i].first >= 0)
            failing_text(o, &r[i]);
    }
    printf("%s\n", failed ? "NOT fit to ship" : "fit to ship");
}

void report(const struct check_options *o, const attn_head *head, const struct result *results,
            int n)
{
    if (o->json)
        report_json(o, head, results, n);
    else
        report_text(o, head, results, n);
}
