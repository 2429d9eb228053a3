/* Every stored layer through the library, by the op that its name stands for and by each other op
 * that takes it, against what diffusers v0.26.3 (or the formula in float64, where the class raises
 * or is wrong) gave.  The table of plugins/processors/README.md is made of what is measured here:
 *
 *   test_goldens GOLDEN_DIR README           compares; the table has to have these rows
 *   test_goldens GOLDEN_DIR README --write   writes the table
 */
#include "attn_layer.h"
#include "stored_layer.h"

#include <glob.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BOUND 1e-5

enum { ROWS = 64, OPTIONS = 24, TEXT = 1024 };

/* What was seen of one name. */
struct row {
    char name[64], processor[64], op[32];
    char options[OPTIONS][48];
    uint32_t n_options, by_class, by_formula, runs;
    double worst;
};
static struct row rows[ROWS];
static uint32_t n_rows;

static attn_registry *registry;
static attn_computer *computer;

/* -- the table --------------------------------------------------------------------------------- */

static struct row *row_of(const struct stored_layer *s)
{
    const char *name = s->words.spec.processor;
    for (uint32_t i = 0; i < n_rows; i++)
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    assert_true(n_rows < ROWS);
    struct row *r = &rows[n_rows++];
    (void)snprintf(r->name, sizeof r->name, "%s", name);
    (void)snprintf(r->processor, sizeof r->processor, "%s", s->name.processor);
    (void)snprintf(r->op, sizeof r->op, "%s", s->name.op);
    return r;
}

static void row_option(struct row *r, const char *name)
{
    char text[48];
    size_t length = strcspn(name, "0123456789");
    if (name[length] && length && name[length - 1] == '.') /* a list */
        (void)snprintf(text, sizeof text, "%.*s<i>", (int)length, name);
    else
        (void)snprintf(text, sizeof text, "%s", name);
    for (uint32_t i = 0; i < r->n_options; i++)
        if (strcmp(r->options[i], text) == 0)
            return;
    assert_true(r->n_options < OPTIONS);
    memcpy(r->options[r->n_options++], text, sizeof text);
}

static int text_order(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* All of a row but the error, which another machine may round another way. */
static void row_text(struct row *r, char text[TEXT])
{
    size_t at = (size_t)snprintf(text, TEXT, "| %s | %s | %s |", r->name, r->processor, r->op);
    qsort(r->options, r->n_options, sizeof *r->options, text_order);
    for (uint32_t i = 0; i < r->n_options; i++)
        at += (size_t)snprintf(text + at, TEXT - at, "%s `%s`", i ? "," : "", r->options[i]);
    if (r->by_class)
        at += (size_t)snprintf(text + at, TEXT - at, " | %u by the class%s", r->by_class,
                               r->by_formula ? ", " : "");
    else
        at += (size_t)snprintf(text + at, TEXT - at, " | ");
    if (r->by_formula)
        at += (size_t)snprintf(text + at, TEXT - at, "%u by the formula", r->by_formula);
    (void)snprintf(text + at, TEXT - at, " | %u |", r->runs);
}

static char *file_text(const char *path)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    long size = ftell(f);
    assert_true(size > 0);
    rewind(f);
    char *text = calloc((size_t)size + 1, 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, (size_t)size, f), (size_t)size);
    (void)fclose(f);
    return text;
}

static const char begin_mark[] = "<!-- table: written by tests/processors/test_goldens.c -->\n";
static const char end_mark[] = "<!-- end of table -->";

static void write_table(const char *readme)
{
    char *text = file_text(readme);
    char *begin = strstr(text, begin_mark), *end = strstr(text, end_mark);
    assert_true(begin && end);
    FILE *f = fopen(readme, "wb");
    assert_non_null(f);
    (void)fprintf(f, "%.*s%s", (int)(begin - text), text, begin_mark);
    (void)fprintf(f, "| name | processor | op | options | layers compared | runs | largest error "
                     "|\n|---|---|---|---|---|---|---|\n");
    for (uint32_t i = 0; i < n_rows; i++) {
        char row[TEXT];
        row_text(&rows[i], row);
        (void)fprintf(f, "%s %.1e |\n", row, rows[i].worst);
    }
    (void)fprintf(f, "%s", end);
    assert_int_equal(fclose(f), 0);
    free(text);
}

static void check_table(const char *readme)
{
    char *text = file_text(readme);
    for (uint32_t i = 0; i < n_rows; i++) {
        char row[TEXT];
        row_text(&rows[i], row);
        const char *found = strstr(text, row);
        if (!found)
            fail_msg("%s has no row\n%s\nRun `meson compile -C build processors-table`.", readme,
                     row);
        else
            assert_true(strtod(found + strlen(row), NULL) <= BOUND);
    }
    free(text);
}

/* -- layers ------------------------------------------------------------------------------------ */

/* One run by `op` (NULL: as the name says).  Refusals of ops that were not asked for by the name
 * are no failures. */
static void run_by(struct stored_layer *s, const char *path, const char *op, struct row *r)
{
    char text[TEXT] = "";
    attn_error err = {sizeof err, sizeof text, text, 0};
    attn_bound *bound = NULL;
    attn_layer_spec spec = s->words.spec;
    spec.op = op;
    if (attn_layer_bind(computer, &s->file->layer, &spec, &bound, &err) != ATTN_OK)
        fail_msg("%s by %s: bind: %s", path, op ? op : "its own", text);
    attn_layer_call call = stored_call(s);
    if (attn_layer_run(bound, &call, &err) != ATTN_OK)
        fail_msg("%s by %s: run: %s", path, op ? op : "its own", text);
    double error = stored_error(s);
    if (!(error <= BOUND))
        fail_msg("%s by %s (%s): relative error %g, bound %g", path, op ? op : "its own",
                 attn_layer_op(bound), error, BOUND);
    call = stored_call(s); /* and again, on what the first run left */
    assert_int_equal(attn_layer_run(bound, &call, &err), ATTN_OK);
    assert_true(stored_error(s) <= BOUND);
    attn_layer_unbind(bound);
    r->worst = fmax(r->worst, error);
    r->runs++;
}

static void layer_agrees(void **state)
{
    const char *path = *state;
    char text[TEXT] = "";
    attn_error err = {sizeof err, sizeof text, text, 0};
    struct stored_layer s;
    if (stored_open(path, &s, &err) != ATTN_OK)
        fail_msg("%s: %s", path, text);
    struct row *r = row_of(&s);
    int op_fixed = 0;
    if (strcmp(s.reference, "diffusers") == 0)
        r->by_class++;
    else
        r->by_formula++;
    for (uint32_t i = s.file->n_params; i < s.words.spec.n_params; i++) {
        const char *name = s.words.spec.params[i].name;
        row_option(r, name);
        op_fixed |= strcmp(name, "attention_op") == 0 || strcmp(name, "slice_size") == 0;
    }
    run_by(&s, path, NULL, r);
    static const char *const ops[] = {"math", "memory_efficient", "sliced", "auto"};
    for (size_t i = 0; i < sizeof ops / sizeof *ops && !op_fixed; i++)
        run_by(&s, path, ops[i], r);
    stored_close(&s);
}

/* -- program ----------------------------------------------------------------------------------- */

static int open_library(void **state)
{
    (void)state;
    char text[TEXT] = "";
    attn_error err = {sizeof err, sizeof text, text, 0};
    const char *folder = getenv("ATTNPLUG_TEST_PLUGINS");
    const attn_registry_options options = {.size = sizeof options,
                                           .flags =
                                               ATTN_REGISTRY_ONLY_PATHS | ATTN_REGISTRY_TRUST_ALL,
                                           .paths = &folder,
                                           .n_paths = 1};
    const attn_device cpu = {.type = ATTN_DEVICE_CPU, .runtime = "cpu"};
    if (attn_registry_open(&options, &registry, &err) != ATTN_OK ||
        attn_computer_open(registry, &cpu, 1, &computer, &err) != ATTN_OK)
        fail_msg("%s", text);
    return 0;
}

static int close_library(void **state)
{
    (void)state;
    attn_computer_close(computer);
    attn_registry_close(registry);
    return 0;
}

int main(int argc, char **argv)
{
    char pattern[TEXT];
    glob_t files;
    if (argc < 3)
        return 2;
    (void)snprintf(pattern, sizeof pattern, "%s/processors/*.safetensors", argv[1]);
    if (glob(pattern, 0, NULL, &files) != 0)
        return 2;
    struct CMUnitTest *tests = calloc(files.gl_pathc, sizeof *tests);
    if (!tests)
        return 2;
    for (size_t i = 0; i < files.gl_pathc; i++)
        tests[i] = (struct CMUnitTest){.name = strrchr(files.gl_pathv[i], '/') + 1,
                                       .test_func = layer_agrees,
                                       .initial_state = files.gl_pathv[i]};
    int failed =
        _cmocka_run_group_tests("layers", tests, files.gl_pathc, open_library, close_library);
    free(tests);
    globfree(&files);
    if (failed)
        return 1;
    if (argc > 3) {
        write_table(argv[2]);
        return 0;
    }
    check_table(argv[2]);
    return 0;
}
