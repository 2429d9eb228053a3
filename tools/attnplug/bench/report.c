/* report.c: a line as soon as a shape is done, or one JSON object at the end. */
#include "bench.h"

#include "../cli.h"

#include <string.h>

/* What --op takes: two vendors' ids may end alike. */
static const char *short_name(const char *id)
{
    static const char own[] = "org.attnplug.";
    return strncmp(id, own, sizeof own - 1) == 0 ? id + sizeof own - 1 : id;
}

static bool on_cpu(const struct bench *b)
{
    return b->place->device.type == ATTN_DEVICE_CPU;
}

static const char *dtype(const struct bench *b)
{
    return b->code == ATTN_CODE_BFLOAT ? "bf16"
           : b->bits == 16             ? "f16"
           : b->bits == 64             ? "f64"
                                       : "f32";
}

void bench_table_head(const struct bench *b)
{
    char ratio[32] = "";
    if (b->place->peer) {
        (void)snprintf(ratio, sizeof ratio, "vs %s", short_name(b->place->peer));
    }
    (void)printf("%s, %s, %s%s\n", b->place->name, b->place->versions, dtype(b),
                 b->key_mass ? ", with key_mass" : "");
    (void)printf("%-17s %-26s %11s %11s %9s %9s %9s %8s\n", "op", "B,H,Nq,Nk,D", "us", "us eager",
                 on_cpu(b) ? "GFLOP/s" : "TFLOP/s", ratio, "of floor", "error");
}

static void number(const char *format, double value)
{
    char text[32] = "-";
    if (value > 0) {
        (void)snprintf(text, sizeof text, format, value);
    }
    (void)printf(" %9s", text);
}

void bench_table_row(const struct bench *b, const struct bench_row *row)
{
    char shape[64];
    const struct bench_shape *s = &row->shape;
    (void)snprintf(shape, sizeof shape, "%lld,%lld,%lld,%lld,%lld", (long long)s->b,
                   (long long)s->h, (long long)s->nq, (long long)s->nk, (long long)s->d);
    (void)printf("%-17s %-26s", short_name(row->op), shape);
    if (row->refused[0]) {
        (void)printf(" %s\n", row->refused);
        return;
    }
    (void)printf("  ");
    number("%.2f", 1e3 * row->median_ms);
    (void)printf("  ");
    number("%.2f", 1e3 * row->eager_ms);
    number(on_cpu(b) ? "%.1f" : "%.2f", on_cpu(b) ? 1e3 * row->tflops : row->tflops);
    number("%.2f", row->ratio);
    number("%.2f", row->share);
    (void)printf(" %8.1e\n", row->error);
    (void)fflush(stdout);
}

static void json_number(const char *name, const char *format, double value)
{
    (void)printf(", \"%s\": ", name);
    if (value > 0) {
        (void)printf(format, value);
    } else {
        (void)fputs("null", stdout);
    }
}

static void json_row(const struct bench *b, const struct bench_row *row)
{
    const struct bench_shape *s = &row->shape;
    (void)fputs("\n  {\"op\": ", stdout);
    cli_json_text(stdout, short_name(row->op));
    (void)printf(", \"shape\": [%lld, %lld, %lld, %lld, %lld], \"dtype\": \"%s\", \"key_mass\": %s",
                 (long long)s->b, (long long)s->h, (long long)s->nq, (long long)s->nk,
                 (long long)s->d, dtype(b), b->key_mass ? "true" : "false");
    json_number("median_ms", "%.6f", row->median_ms);
    json_number("eager_ms", "%.6f", row->eager_ms);
    json_number("rounds", "%.0f", row->rounds);
    json_number("tflops", on_cpu(b) ? "%.6f" : "%.3f", row->tflops);
    (void)fputs(", \"peer\": ", stdout);
    if (row->ratio > 0) {
        cli_json_text(stdout, short_name(b->place->peer));
    } else {
        (void)fputs("null", stdout);
    }
    json_number("ratio", "%.3f", row->ratio);
    json_number("share", "%.3f", row->share);
    if (row->refused[0]) {
        (void)fputs(", \"error\": null, \"refused\": ", stdout);
        cli_json_text(stdout, row->refused);
    } else {
        (void)printf(", \"error\": %.2e", row->error);
    }
    (void)putchar('}');
}

/* Each op's version once. */
static void json_versions(const struct bench *b, const struct bench_row *rows, int n)
{
    (void)fputs("{\"device\": ", stdout);
    cli_json_text(stdout, b->place->versions);
    for (int i = 0; i < n; i++) {
        int seen = rows[i].version[0] == 0;
        for (int k = 0; k < i; k++) {
            seen |= strcmp(rows[k].op, rows[i].op) == 0 && rows[k].version[0];
        }
        if (!seen) {
            (void)fputs(", ", stdout);
            cli_json_text(stdout, short_name(rows[i].op));
            (void)fputs(": ", stdout);
            cli_json_text(stdout, rows[i].version);
        }
    }
    (void)putchar('}');
}

void bench_json(const struct bench *b, const struct bench_row *rows, int n, const char *command)
{
    (void)fputs("{\"command\": ", stdout);
    cli_json_text(stdout, command);
    (void)fputs(", \"device\": ", stdout);
    cli_json_text(stdout, b->place->name);
    (void)fputs(", \"versions\": ", stdout);
    json_versions(b, rows, n);
    (void)fputs(", \"rows\": [", stdout);
    for (int i = 0; i < n; i++) {
        (void)fputs(i ? "," : "", stdout);
        json_row(b, &rows[i]);
    }
    (void)fputs("\n]}\n", stdout);
}
