/* order.c: reads and writes the measured order; finds the timing nearest to a call. */
#include "order.h"

#include "error.h"
#include "opened.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <locale.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

enum { MAX_ROWS = 65536, MAX_LINE = 512 };

static const char first_line[] = "# attnplug order 1";

/* A shape is near where its sizes differ by less than this factor in all (their ratios multiplied);
 * further away, the order of two ops may well have turned. */
#define NEAR 8.0

/* The file's numbers have a point, whatever language the host has chosen: for this thread, until
 * numbers_as_before. */
static locale_t numbers_with_point(void)
{
    return uselocale(newlocale(LC_ALL_MASK, "C", (locale_t)0));
}

static void numbers_as_before(locale_t before)
{
    locale_t plain = uselocale(before);
    if (plain != before) {
        freelocale(plain);
    }
}

static attn_status default_path(char *path, bool make, attn_error *err)
{
    const char *cache = secure_getenv("XDG_CACHE_HOME");
    const char *home = secure_getenv("HOME");
    char folder[PATH_MAX - 96];
    int n = -1;
    if (cache && cache[0] == '/') {
        n = snprintf(folder, sizeof folder, "%s", cache);
    } else if (home && home[0] == '/') {
        n = snprintf(folder, sizeof folder, "%s/.cache", home);
    }
    if (n < 0 || n >= (int)sizeof folder) {
        return attn_fail(err, ATTN_NOT_FOUND,
                         "no folder for the measured order: neither "
                         "XDG_CACHE_HOME nor HOME is an absolute path");
    }
    (void)snprintf(path, PATH_MAX, "%s/attnplug", folder);
    if (make && ((mkdir(folder, 0700) != 0 && errno != EEXIST) ||
                 (mkdir(path, 0700) != 0 && errno != EEXIST))) {
        return attn_fail(err, ATTN_IO, "%s: %s", path, strerror(errno));
    }
    /* Homes are shared between machines; what was measured on one says nothing of another. */
    struct utsname machine;
    const char *node = uname(&machine) == 0 && machine.nodename[0] && !strchr(machine.nodename, '/')
                           ? machine.nodename
                           : "unnamed";
    (void)snprintf(path, PATH_MAX, "%s/attnplug/order-%.64s", folder, node);
    return ATTN_OK;
}

static attn_status write_rows(FILE *file, const attn_order_row *rows, uint32_t n)
{
    (void)fprintf(file, "%s\n# runtime dtype B H Nq Nk D op version microseconds\n", first_line);
    for (uint32_t i = 0; i < n; i++) {
        const attn_order_row *r = &rows[i];
        (void)fprintf(file, "%s %s %lld %lld %lld %lld %lld %s %s %.3f\n", r->runtime, r->dtype,
                      (long long)r->shape[0], (long long)r->shape[1], (long long)r->shape[2],
                      (long long)r->shape[3], (long long)r->shape[4], r->op, r->version, r->us);
    }
    return fflush(file) == 0 && !ferror(file) ? ATTN_OK : ATTN_IO;
}

attn_status attn_order_save(const char *path, const attn_order_row *rows, uint32_t n,
                            attn_error *err)
{
    char own[PATH_MAX], temporary[PATH_MAX + 16];
    attn_status status = path ? ATTN_OK : default_path(own, true, err);
    if (status != ATTN_OK) {
        return status;
    }
    path = path ? path : own;
    (void)snprintf(temporary, sizeof temporary, "%.*s.XXXXXX", PATH_MAX - 1, path);
    int fd = mkstemp(temporary);
    FILE *file = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (!file) {
        status = attn_fail(err, ATTN_IO, "%s: %s", temporary, strerror(errno));
        if (fd >= 0) {
            close(fd);
            unlink(temporary);
        }
        return status;
    }
    locale_t before = numbers_with_point();
    status = write_rows(file, rows, n);
    numbers_as_before(before);
    if (fclose(file) != 0) {
        status = ATTN_IO;
    }
    if (status == ATTN_OK && rename(temporary, path) != 0) {
        status = ATTN_IO;
    }
    if (status != ATTN_OK) {
        attn_fail(err, status, "%s: %s", path, strerror(errno));
        unlink(temporary);
    }
    return status;
}

static bool parse_row(const char *line, attn_order_row *r)
{
    long long s[5];
    *r = (attn_order_row){.size = sizeof *r};
    if (sscanf(line, "%23s %7s %lld %lld %lld %lld %lld %63s %15s %lf", r->runtime, r->dtype, &s[0],
               &s[1], &s[2], &s[3], &s[4], r->op, r->version, &r->us) != 10) {
        return false;
    }
    for (int i = 0; i < 5; i++) {
        r->shape[i] = s[i];
        if (s[i] < 1) {
            return false;
        }
    }
    return r->us > 0 && isfinite(r->us);
}

static attn_status read_rows(FILE *file, const char *path, attn_order_row *rows, uint32_t capacity,
                             uint32_t *n, attn_error *err)
{
    char line[MAX_LINE];
    int number = 0;
    while (fgets(line, sizeof line, file)) {
        attn_order_row row;
        number++;
        line[strcspn(line, "\n")] = 0;
        if (number == 1 ? strcmp(line, first_line) != 0
                        : line[0] != '#' && (!parse_row(line, &row) || *n == MAX_ROWS)) {
            return attn_fail(err, ATTN_INVALID, "%s: line %d is \"%.60s\", expected %s", path,
                             number, line, number == 1 ? first_line : "a timing of ten words");
        }
        if (line[0] != '#') {
            if (*n < capacity) {
                rows[*n] = row;
            }
            (*n)++;
        }
    }
    return ferror(file) ? attn_fail(err, ATTN_IO, "%s: reading failed", path) : ATTN_OK;
}

attn_status attn_order_load(const char *path, attn_order_row *rows, uint32_t capacity, uint32_t *n,
                            attn_error *err)
{
    char own[PATH_MAX];
    *n = 0;
    if (!path) {
        if (default_path(own, false, NULL) != ATTN_OK) {
            return ATTN_OK;
        }
        path = own;
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    FILE *file = fd >= 0 ? fdopen(fd, "r") : NULL;
    if (!file) {
        if (fd >= 0) {
            close(fd);
        }
        return errno == ENOENT ? ATTN_OK : attn_fail(err, ATTN_IO, "%s: %s", path, strerror(errno));
    }
    locale_t before = numbers_with_point();
    attn_status status = read_rows(file, path, rows, capacity, n, err);
    numbers_as_before(before);
    (void)fclose(file);
    return status;
}

void order_read(measured_order *order, attn_registry *registry)
{
    ATTN_ERROR_ON(why, 512);
    uint32_t n = 0, again = 0;
    *order = (measured_order){0};
    attn_status status = attn_order_load(NULL, NULL, 0, &n, &why);
    if (status == ATTN_OK && n) {
        order->rows = calloc(n, sizeof *order->rows);
        status = order->rows ? attn_order_load(NULL, order->rows, n, &again, &why)
                             : attn_fail(&why, ATTN_NOMEM, "no memory for %u timings", n);
        order->n = again < n ? again : n;
    }
    if (status != ATTN_OK) {
        registry_log(registry, 1, "the measured order is not used: %s", why.text);
        order_free(order);
    }
}

void order_free(measured_order *order)
{
    free(order->rows);
    *order = (measured_order){0};
}

/* Product of the ratios, each at least 1, of batch times heads, queries, keys and dimension. */
static double shape_distance(const int64_t a[5], const int64_t b[5])
{
    const double x[4] = {(double)a[0] * (double)a[1], (double)a[2], (double)a[3], (double)a[4]};
    const double y[4] = {(double)b[0] * (double)b[1], (double)b[2], (double)b[3], (double)b[4]};
    double product = 1;
    for (int i = 0; i < 4; i++) {
        product *= x[i] > y[i] ? x[i] / y[i] : y[i] / x[i];
    }
    return product;
}

double order_lookup(const measured_order *order, const char *runtime, const char *dtype,
                    const int64_t shape[5], const char *op, const attn_order_row **row)
{
    double nearest = NEAR;
    *row = NULL;
    /* One shape for all ops: the nearest that anything was measured at, so that times compare. */
    const attn_order_row *at = NULL;
    for (uint32_t i = 0; i < order->n; i++) {
        const attn_order_row *r = &order->rows[i];
        double d = shape_distance(r->shape, shape);
        if (d < nearest && strcmp(r->runtime, runtime) == 0 && strcmp(r->dtype, dtype) == 0) {
            nearest = d;
            at = r;
        }
    }
    for (uint32_t i = 0; at && i < order->n; i++) {
        const attn_order_row *r = &order->rows[i];
        if (strcmp(r->op, op) == 0 && memcmp(r->shape, at->shape, sizeof r->shape) == 0 &&
            strcmp(r->runtime, runtime) == 0 && strcmp(r->dtype, dtype) == 0) {
            *row = r;
            return r->us;
        }
    }
    return 0;
}
