/* Every stored layer through the library, by the op that its name stands for and by each other op
 * that takes it, against what diffusers v0.26.3 (or the formula in float64, where the class raises
 * or is wrong) gave.  The table of plugins/processors/README.md is made of what is measured here:
 *
 *   test_goldens GOLDEN_DIR README           compares; the table has to have these rows
 *   test_goldens GOLDEN_DIR README --write   writes the table
 *   test_goldens GOLDEN_DIR README --cuda    compares on a GPU; 77 where there is none
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

static int on_gpu;
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

/* What SAG asks of a layer: from its own attention, whatever its processor adds. */
struct asked {
    float *lse, *key_mass;
    int64_t n_lse, n_mass;
};

static attn_tensor asked_tensor(float **memory, int64_t *count, uint32_t rank, const int64_t *shape)
{
    attn_tensor t = {.device_type = ATTN_DEVICE_CPU,
                     .code = ATTN_CODE_FLOAT,
                     .bits = 32,
                     .lanes = 1,
                     .rank = rank};
    *count = 1;
    for (uint32_t i = rank; i-- > 0;) {
        t.shape[i] = shape[i];
        t.stride[i] = *count;
        *count *= shape[i];
    }
    *memory = malloc((size_t)*count * sizeof **memory);
    assert_non_null(*memory);
    memset(*memory, 0xff, (size_t)*count * sizeof **memory);
    t.data = *memory;
    return t;
}

static void ask(struct asked *a, const struct stored_layer *s, attn_layer_call *call)
{
    const attn_tensor *h = &s->file->hidden;
    const int64_t tokens = h->rank == 4 ? h->shape[2] * h->shape[3] : h->shape[1];
    const int64_t lse[3] = {h->shape[0], s->file->layer.heads, tokens};
    const int64_t mass[2] = {h->shape[0], layer_file_keys(s->file, s->base, 3)};
    call->lse = asked_tensor(&a->lse, &a->n_lse, 3, lse);
    call->key_mass = asked_tensor(&a->key_mass, &a->n_mass, 2, mass);
}

static void asked_free(struct asked *a)
{
    free(a->lse);
    free(a->key_mass);
    *a = (struct asked){0};
}

/* The same of every op; `first` gets those of the first. */
static void asked_agree(struct asked *got, struct asked *first, const char *path, const char *op)
{
    if (!first->lse) {
        *first = *got;
        *got = (struct asked){0};
        return;
    }
    double lse = relative_error(got->lse, first->lse, got->n_lse);
    double mass = relative_error(got->key_mass, first->key_mass, got->n_mass);
    if (!(lse <= BOUND && mass <= BOUND))
        fail_msg("%s by %s: lse differs by %g, key_mass by %g", path, op, lse, mass);
    asked_free(got);
}

static void run_checked(attn_bound *bound, struct stored_layer *s, const attn_layer_call *call,
                        const char *path, const char *op)
{
    char text[TEXT] = "";
    attn_error err = {sizeof err, sizeof text, text, 0};
    if (attn_layer_run(bound, call, &err) != ATTN_OK)
        fail_msg("%s by %s: run: %s", path, op, text);
    double error = stored_error(s);
    if (!(error <= BOUND))
        fail_msg("%s by %s (%s): relative error %g, bound %g", path, op, attn_layer_op(bound),
                 error, BOUND);
}

/* Runs by `op` (NULL: as the name says): once for the result alone, then with what SAG asks for. */
static void run_by(struct stored_layer *s, const char *path, const char *op, struct row *r,
                   struct asked *first)
{
    char text[TEXT] = "";
    attn_error err = {sizeof err, sizeof text, text, 0};
    attn_bound *bound = NULL;
    struct asked asked = {0};
    attn_layer_spec spec = s->words.spec;
    const char *shown = op ? op : "its own op";
    spec.op = op;
    if (attn_layer_bind(computer, &s->file->layer, &spec, &bound, &err) != ATTN_OK)
        fail_msg("%s by %s: bind: %s", path, shown, text);
    attn_layer_call call = stored_call(s);
    run_checked(bound, s, &call, path, shown);
    r->worst = fmax(r->worst, stored_error(s));
    r->runs++;
    call = stored_call(s);
    ask(&asked, s, &call);
    run_checked(bound, s, &call, path, shown);
    asked_agree(&asked, first, path, shown);
    attn_layer_unbind(bound);
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
    struct asked first = {0};
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
    run_by(&s, path, NULL, r, &first);
    static const char *const ops[] = {"math", "memory_efficient", "sliced", "auto"};
    for (size_t i = 0; i < sizeof ops / sizeof *ops && !op_fixed && !on_gpu; i++)
        run_by(&s, path, ops[i], r, &first);
    for (size_t i = 0; i < 2 && !op_fixed && on_gpu; i++)
        run_by(&s, path, i ? "math" : "auto", r, &first);
    asked_free(&first);
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
    const attn_device gpu = {.type = ATTN_DEVICE_CUDA, .runtime = "cuda"};
    if (attn_registry_open(&options, &registry, &err) != ATTN_OK ||
        attn_computer_open(registry, on_gpu ? &gpu : &cpu, 1, &computer, &err) != ATTN_OK)
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

/* Says which: a build without the part for NVIDIA GPUs, or a machine without one. */
static int gpu_missing(void)
{
    char text[TEXT] = "";
    attn_error err = {sizeof err, sizeof text, text, 0};
    const attn_registry_options none = {.size = sizeof none, .flags = ATTN_REGISTRY_ONLY_PATHS};
    const attn_device gpu = {.type = ATTN_DEVICE_CUDA, .runtime = "cuda"};
    if (attn_registry_open(&none, &registry, &err) != ATTN_OK)
        return 0;
    attn_status status = attn_computer_open(registry, &gpu, 1, &computer, &err);
    if (status == ATTN_OK)
        attn_computer_close(computer);
    else
        print_message("SKIP processors on a GPU: %s\n", text);
    attn_registry_close(registry);
    return status == ATTN_UNSUPPORTED;
}

int main(int argc, char **argv)
{
    char pattern[TEXT];
    glob_t files;
    if (argc < 3)
        return 2;
    on_gpu = argc > 3 && strcmp(argv[3], "--cuda") == 0;
    if (on_gpu && gpu_missing())
        return 77;
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
    if (on_gpu)
        return 0;
    if (argc > 3) {
        write_table(argv[2]);
        return 0;
    }
    check_table(argv[2]);
    return 0;
}
