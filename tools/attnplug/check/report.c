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

static void reproduce(const struct check_options *o, const struct result *r, char *out,
                      size_t bytes)
{
    (void)snprintf(out, bytes, "attnplug check %s --test %s --seed %llu --case %lld", o->path,
                   r->name, (unsigned long long)o->seed, (long long)r->first);
}

static void report_json(const struct check_options *o, const attn_head *head,
                        const struct result *r, int n)
{
    char again[1024];
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
        if (r[i].verdict == VERDICT_FAIL && r[i].first >= 0) {
            reproduce(o, &r[i], again, sizeof again);
            printf(", \"case\": ");
            json_text(r[i].case_text);
            printf(", \"reproduce\": ");
            json_text(again);
        }
        printf("}");
    }
    printf("\n]}\n");
}

static void report_text(const struct check_options *o, const attn_head *head,
                        const struct result *r, int n)
{
    int failed = 0;
    char again[1024];
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
        if (r[i].verdict == VERDICT_FAIL && r[i].first >= 0) {
            reproduce(o, &r[i], again, sizeof again);
            printf("        %lld cases failed; the first: %s\n        again: %s\n",
                   (long long)r[i].failed, r[i].case_text, again);
        }
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
