/* The command as people call it: exit codes, what goes to stdout and what to stderr. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>

#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "safetensors.h"

static const char *tool, *golden;
static char *no_lse; /* an op's file */
static char out[1 << 20], err[1 << 16];

static void read_all(const char *path, char *text, size_t capacity)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    ssize_t n = read(fd, text, capacity - 1);
    assert_true(n >= 0);
    text[n] = 0;
    close(fd);
    unlink(path);
}

/* Runs "attnplug ARGUMENTS" by the shell; leaves stdout and stderr in out and err. */
__attribute__((format(printf, 1, 2))) static int run(const char *format, ...)
{
    char command[2048], arguments[1024], out_path[64], err_path[64];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(arguments, sizeof arguments, format, args);
    va_end(args);
    (void)snprintf(out_path, sizeof out_path, "/tmp/attnplug-cli-%d.out", getpid());
    (void)snprintf(err_path, sizeof err_path, "/tmp/attnplug-cli-%d.err", getpid());
    (void)snprintf(command, sizeof command, "'%s' %s >%s 2>%s", tool, arguments, out_path,
                   err_path);
    int status = system(command); /* NOLINT: the arguments are this test's own */
    read_all(out_path, out, sizeof out);
    read_all(err_path, err, sizeof err);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void expect(int status, int expected, const char *in_out, const char *in_err)
{
    if (status != expected || !strstr(out, in_out) || !strstr(err, in_err)) {
        fail_msg("exit %d, expected %d\nstdout: %s\nstderr: %s", status, expected, out, err);
    }
}

static void test_usage(void **state)
{
    (void)state;
    expect(run("--help"), 0, "usage: attnplug COMMAND", "");
    expect(run("--version"), 0, "attnplug 0.", "");
    expect(run("%s", ""), 2, "", "usage: attnplug COMMAND");
    assert_string_equal(out, "");
    expect(run("nonsense"), 2, "", "no command \"nonsense\"");
    static const char *const commands[] = {"list",  "names",  "why", "attend",
                                           "bench", "encode", "sag", "layer"};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        expect(run("%s --help", commands[i]), 0, "usage: attnplug ", "");
        assert_string_equal(err, "");
        expect(run("%s --no-such-option", commands[i]), 2, "", "--no-such-option: no such option");
        expect(run("%s stray", commands[i]), 2, "", "stray");
    }
    expect(run("why --shape"), 2, "", "its value is missing");
    char command[512];
    (void)snprintf(command, sizeof command, "'%s' names >/dev/full 2>/dev/null", tool);
    int status = system(command); /* NOLINT: the arguments are this test's own */
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
}

/* What was found on this machine is said, be it nothing. */
static void test_version(void **state)
{
    (void)state;
    static const char *const parts[] = {"\ncpu ", " kernels, ", "\ncuda ", "\ncann ", "\nplugins "};
    expect(run("--version"), 0, "attnplug 0.", "");
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        expect(0, 0, parts[i], "");
    }
    setenv("ATTNPLUG_CPU", "c", 1);
    expect(run("--version"), 0, "c kernels, ", "");
    setenv("ATTNPLUG_CPU", "abacus", 1);
    expect(run("--version"), 0, "abacus", "");
    unsetenv("ATTNPLUG_CPU");
}

/* Every option of the help stands in the page, and formatters have nothing to say of it. */
static void page_check(const char *command)
{
    char check[1024];
    expect(run("%s --man", command), 0, ".SH OPTIONS\n", "");
    char *page = strdup(out);
    assert_non_null(page);
    assert_memory_equal(page, ".TH ATTNPLUG-", 13);
    expect(run("%s --help", command), 0, "usage: ", "");
    int options = 0;
    for (const char *line = out; (line = strstr(line, "\n  --")); line++) {
        char tag[256] = "\\fB\\-\\-";
        size_t at = strlen(tag);
        for (const char *c = line + 5; *c != ' ' && *c != '\n'; c++) {
            if (*c == '-') {
                tag[at++] = '\\';
            }
            tag[at++] = *c;
        }
        (void)snprintf(tag + at, sizeof tag - at, "\\fR");
        if (!strstr(page, tag)) {
            fail_msg("the page of %s lacks %s", command, tag);
        }
        options++;
    }
    assert_true(options >= 4);
    (void)snprintf(
        check, sizeof check,
        "set -e; '%s' %s --man >/tmp/attnplug-cli-%d.1;"
        " if command -v man >/dev/null; then"
        " test -z \"$(LC_ALL=C man --warnings -l /tmp/attnplug-cli-%d.1 2>&1 >/dev/null)\"; fi;"
        " if command -v mandoc >/dev/null; then mandoc -Tlint /tmp/attnplug-cli-%d.1; fi",
        tool, command, getpid(), getpid(), getpid());
    assert_int_equal(system(check), 0); /* NOLINT: the text is this test's own */
    (void)snprintf(check, sizeof check, "/tmp/attnplug-cli-%d.1", getpid());
    unlink(check);
    free(page);
}

static void test_pages(void **state)
{
    (void)state;
    expect(run("--man"), 0, ".TH ATTNPLUG 1 ", "");
    expect(run("--help"), 0, "usage: ", "");
    char *commands = strdup(out);
    assert_non_null(commands);
    int pages = 0;
    for (const char *line = commands; (line = strstr(line, "\n  ")); line++) {
        char name[32];
        if (sscanf(line, "%31s", name) == 1) {
            page_check(name);
            pages++;
        }
    }
    assert_true(pages >= 7);
    free(commands);
}

/* What a file's author writes into a name reaches no terminal as a command. */
static void test_no_control(void **state)
{
    (void)state;
    expect(run("why --shape \"$(printf '1\\033]0;x\\007\\302\\233y\\177')\""), 2, "", "1?]0;x??y?");
    for (const char *c = err; *c; c++)
        assert_true((unsigned char)*c >= 0x20 || *c == '\n');
}

static void test_list(void **state)
{
    (void)state;
    expect(run("list"), 0, "org.attnplug.math", "");
    expect(run("list --json --plugin-path /proc/nonexistent"), 0, "\"verdict\": \"BAD_FILE\"", "");
    json_error_t why;
    json_t *list = json_loads(out, 0, &why);
    assert_non_null(list);
    assert_true(json_array_size(list) > 3);
    for (size_t i = 0; i < json_array_size(list); i++) {
        static const char *const keys[] = {"path", "verdict", "reason", "kind", "id", "version"};
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
            assert_true(json_is_string(json_object_get(json_array_get(list, i), keys[k])));
        }
    }
    json_decref(list);
    /* A path that is no UTF-8 does not break the JSON. */
    expect(run("list --json --plugin-path \"$(printf '/none\\377\\tx')\""), 0, "\\ufffd\\u0009x",
           "");
    list = json_loads(out, 0, &why);
    assert_non_null(list);
    json_decref(list);
}

static void test_names(void **state)
{
    (void)state;
    expect(run("names"), 0, "LoRAAttnAddedKVProcessor", "");
    expect(run("names --json"), 0, "\"lora+added_kv\"", "");
    json_error_t why;
    json_t *list = json_loads(out, 0, &why);
    assert_non_null(list);
    assert_true(json_array_size(list) > 40);
    json_decref(list);
}

static void test_why(void **state)
{
    (void)state;
    unsetenv("ATTNPLUG_OP");
    expect(run("why --shape 1,8,64,64,40 --key-mass"), 0, "taken  org.attnplug.memory_efficient",
           "");
    expect(run("why"), 2, "", "--shape is missing");
    expect(run("why --shape 1,2,3"), 2, "", "expected 5 numbers");
    expect(run("why --shape 1,8,64,64,0"), 2, "", "expected 5 numbers");
    expect(run("why --shape 1,8,64,64,40 --device tpu"), 2, "", "expected cpu, cuda");
    expect(run("why --shape 1,8,64,64,40 --dtype int4"), 2, "", "expected f32, f16");
    setenv("ATTNPLUG_OP", "quick", 1);
    expect(run("why --shape 1,8,64,64,40"), 1, "", "ATTNPLUG_OP=quick names no op; there are: ");
    unsetenv("ATTNPLUG_OP");
    expect(run("why --shape 1,8,64,64,40 --json"), 0, "\"taken\": true", "");
}

/* As many refusals as there are ops, and behind them the one that is taken. */
static void test_why_many(void **state)
{
    enum { MANY = 150 };
    static char bytes[1 << 20];
    static const char id[] = "org.attnplug.test.wrong";
    char folder[] = "/tmp/attnplug-why-XXXXXX", path[64];
    (void)state;
    FILE *from = fopen(no_lse, "rb");
    assert_non_null(from);
    const size_t n = fread(bytes, 1, sizeof bytes, from);
    assert_int_equal(fclose(from), 0);
    char *at = memmem(bytes, n, id, sizeof id);
    assert_non_null(at);
    assert_non_null(mkdtemp(folder));
    for (int i = 0; i < MANY; i++) {
        (void)snprintf(path, sizeof path, "%s/%03d.so", folder, i);
        (void)snprintf(at, sizeof id, "org.attnplug.test.n%03u", (unsigned)i % 1000);
        FILE *to = fopen(path, "wb");
        assert_non_null(to);
        assert_int_equal(fwrite(bytes, 1, n, to), n);
        assert_int_equal(fclose(to), 0);
    }
    expect(run("why --shape 1,8,64,64,40 --lse --probs --plugin-path %s", folder), 0,
           "no     org.attnplug.test.n149", "");
    expect(0, 0, "taken  org.attnplug.math", "");
    for (int i = 0; i < MANY; i++) {
        (void)snprintf(path, sizeof path, "%s/%03d.so", folder, i);
        unlink(path);
    }
    assert_int_equal(rmdir(folder), 0);
}

/* Element i of a stored tensor of floats. */
static double element(const safetensors_tensor *t, uint64_t i)
{
    float f = 0;
    uint32_t bits;
    uint16_t half;
    switch (t->dtype.bits) {
    case 32:
        memcpy(&f, (const char *)t->data + i * 4, 4);
        break;
    default:
        memcpy(&half, (const char *)t->data + i * 2, 2);
        if (t->dtype.code == 2) {
            _Static_assert(sizeof(unsigned short) == 2, "half");
            uint32_t e = half >> 10 & 31, m = half & 1023;
            double v = e == 31  ? (m ? (double)NAN : (double)INFINITY)
                       : e == 0 ? ldexp(m, -24)
                                : ldexp(m + 1024, (int)e - 25);
            return half & 0x8000 ? -v : v;
        }
        bits = (uint32_t)half << 16;
        memcpy(&f, &bits, 4);
        break;
    }
    return (double)f;
}

/* Relative L2 over finite elements; infinities must match. */
static double difference(const safetensors_tensor *got, const safetensors_tensor *want)
{
    uint64_t n = want->bytes * 8 / want->dtype.bits;
    double square = 0, norm = 0;
    assert_int_equal(got->bytes * 8 / got->dtype.bits, n);
    for (uint64_t i = 0; i < n; i++) {
        double g = element(got, i), w = element(want, i);
        if (isinf(w)) {
            assert_true(g == w);
            continue;
        }
        square += (g - w) * (g - w);
        norm += w * w;
    }
    return norm > 0 ? sqrt(square / norm) : sqrt(square);
}

static void compare_golden(const char *op, const char *name)
{
    static const char *const outputs[] = {"out", "lse", "key_mass"};
    char in_path[512], out_path[64];
    safetensors *want = NULL, *got = NULL;
    (void)snprintf(in_path, sizeof in_path, "%s/ops/%s.safetensors", golden, name);
    (void)snprintf(out_path, sizeof out_path, "/tmp/attnplug-cli-%d.safetensors", getpid());
    expect(run("attend --op %s --in %s --out %s", op, in_path, out_path), 0, "", "");
    assert_int_equal(safetensors_open(in_path, &want, NULL), ATTN_OK);
    assert_int_equal(safetensors_open(out_path, &got, NULL), ATTN_OK);
    uint8_t code = safetensors_find(want, "q")->dtype.code;
    uint8_t bits = safetensors_find(want, "q")->dtype.bits;
    double bound = bits == 32 ? 2e-6 : code == 2 ? 1e-3 : 8e-3;
    for (int i = 0; i < 3; i++) {
        const safetensors_tensor *w = safetensors_find(want, outputs[i]);
        const safetensors_tensor *g = safetensors_find(got, outputs[i]);
        assert_true(g != NULL);
        if (w) {
            double d = difference(g, w);
            if (!(d < bound)) {
                fail_msg("%s of %s by %s: relative L2 %g, bound %g", outputs[i], name, op, d,
                         bound);
            }
        }
    }
    safetensors_close(want);
    safetensors_close(got);
    unlink(out_path);
}

static void test_attend(void **state)
{
    static const char *const ops[] = {"math", "memory_efficient", "sliced", "auto"};
    static const char *const names[] = {"attend_basic", "attend_bf16_mask", "attend_bias",
                                        "attend_window_causal", "attend_one_key"};
    (void)state;
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
            compare_golden(ops[i], names[k]);
        }
    }
}

/* What must not be there afterwards. */
static const char *unwritten(void)
{
    static char path[64];
    (void)snprintf(path, sizeof path, "/tmp/attnplug-cli-%d.unwritten", getpid());
    return path;
}

static void test_attend_errors(void **state)
{
    char in_path[512];
    const char *x = unwritten();
    (void)state;
    (void)snprintf(in_path, sizeof in_path, "%s/ops/attend_basic.safetensors", golden);
    expect(run("attend --in x"), 2, "", "--out is missing");
    expect(run("attend --out x"), 2, "", "--in is missing");
    expect(run("attend --in /proc/nonexistent --out %s", x), 1, "", "/proc/nonexistent");
    expect(run("attend --in /dev/null --out %s", x), 1, "", "/dev/null");
    expect(run("attend --op nothing --in %s --out %s", in_path, x), 2, "",
           "--op: \"nothing\" is no processor or op");
    expect(run("attend --in %s --out /proc/nonexistent/x", in_path), 1, "", "/proc/nonexistent/x");
    expect(run("attend --op cuda_flash --in %s --out %s", in_path, x), 1, "", "cuda_flash");
    assert_int_not_equal(access(x, F_OK), 0);
}

static void test_layer_errors(void **state)
{
    const char *x = unwritten();
    (void)state;
    expect(run("layer --in x --out %s", x), 2, "", "--processor is missing");
    expect(run("layer --processor standard --out %s", x), 2, "", "--in is missing");
    expect(run("layer --processor standard --in x"), 2, "", "--out is missing");
    expect(run("layer --processor standard --op nothing --in x --out %s", x), 2, "",
           "--op: \"nothing\" is no processor or op");
    expect(run("layer --processor standard --dtype f64 --in x --out %s", x), 2, "",
           "--dtype: \"f64\", expected f32, f16 or bf16");
    expect(run("layer --processor nothing --in x --out %s", x), 2, "",
           "--processor nothing: \"nothing\" is no processor");
    expect(run("layer --processor standard:scale --in x --out %s", x), 2, "", "name=value");
    expect(run("layer --processor math --in x --out %s", x), 2, "", "which --op takes");
    expect(run("layer --processor ./none.so --in x --out %s", x), 2, "",
           "--processor: ./none.so: No such file");
    expect(run("layer --processor %s --in x --out %s", no_lse, x), 2, "",
           "has an op, and no processor");
    expect(run("layer --processor standard:attention_op=%s --in /proc/nonexistent --out %s", no_lse,
               x),
           1, "", "/proc/nonexistent");
    assert_int_not_equal(access(x, F_OK), 0);
}

/* An op without lse, named by its file, its id, and its id's last part. */
static void test_attend_less(void **state)
{
    static const char *const names[] = {"org.attnplug.test.wrong", "wrong", NULL};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        expect(run("attend --plugin-path %s --op %s --in %s/ops/attend_basic.safetensors --out "
                   "/tmp/attnplug-cli-%d.st",
                   no_lse, names[i] ? names[i] : no_lse, golden, getpid()),
               0, "", "attnplug: note: written without lse, which the op refuses: ");
        assert_null(strstr(err, "without key_mass"));
        char path[64];
        safetensors *got = NULL;
        (void)snprintf(path, sizeof path, "/tmp/attnplug-cli-%d.st", getpid());
        assert_int_equal(safetensors_open(path, &got, NULL), ATTN_OK);
        assert_non_null(safetensors_find(got, "key_mass"));
        assert_null(safetensors_find(got, "lse"));
        safetensors_close(got);
        unlink(path);
    }
}

/* Folders that somebody meant, and nothing comes of. */
static void test_folders(void **state)
{
    (void)state;
    setenv("ATTNPLUG_PATH", "/proc/nonexistent:/proc/self/fdinfo", 1);
    expect(run("list"), 0, "org.attnplug.math", "ATTNPLUG_PATH: /proc/nonexistent is not there");
    expect(0, 0, "", "ATTNPLUG_PATH: /proc/self/fdinfo has no *.so");
    unsetenv("ATTNPLUG_PATH");
    expect(run("list x.so"), 2, "", "attnplug check --test file");
    expect(run("names --plugin-path %s", no_lse), 0, "\norg.attnplug.test.wrong ", "");
    expect(run("names --json --plugin-path %s", no_lse), 0, "\"org.attnplug.test.wrong\"", "");
}

/* An op that is slow gets fewer rounds than one that is not. */
static void test_bench_slow(void **state)
{
    (void)state;
    json_error_t why;
    expect(run("bench --op memory_efficient --op sliced --shapes 1,8,256,256,64 --rounds 101"
               " --seconds 1 --json"),
           0, "\"rows\"", "");
    json_t *report = json_loads(out, 0, &why);
    assert_non_null(report);
    const json_t *rows = json_object_get(report, "rows");
    json_int_t rounds[2];
    for (size_t i = 0; i < 2; i++) {
        rounds[i] = json_integer_value(json_object_get(json_array_get(rows, i), "rounds"));
        assert_in_range(rounds[i], 1, 101);
    }
    assert_true(rounds[1] < rounds[0]);
    json_decref(report);
    expect(run("bench --shapes 1,1,8,8,8 --seconds 0"), 2, "", "--seconds: 0, expected 1 to");
}

static void test_bench(void **state)
{
    (void)state;
    json_error_t why;
    expect(run("bench --op memory_efficient --shapes 1,2,33,20,16 --shapes 1,1,8,8,8 --rounds 3"),
           0, "memory_efficient  1,2,33,20,16", "");
    expect(run("bench --op memory_efficient --op sliced --shapes 1,2,33,20,16 --rounds 3 --json"),
           0, "\"rows\"", "");
    json_t *report = json_loads(out, 0, &why);
    assert_non_null(report);
    assert_true(json_is_string(json_object_get(report, "device")));
    assert_true(json_is_object(json_object_get(report, "versions")));
    const json_t *rows = json_object_get(report, "rows");
    assert_int_equal(json_array_size(rows), 2);
    for (size_t i = 0; i < 2; i++) {
        const json_t *row = json_array_get(rows, i);
        assert_string_equal(json_string_value(json_object_get(row, "op")),
                            i ? "sliced" : "memory_efficient");
        assert_int_equal(json_integer_value(json_array_get(json_object_get(row, "shape"), 2)), 33);
        assert_string_equal(json_string_value(json_object_get(row, "dtype")), "f32");
        assert_true(json_real_value(json_object_get(row, "median_ms")) > 0);
        assert_true(json_real_value(json_object_get(row, "tflops")) >= 0);
        assert_true(json_real_value(json_object_get(row, "error")) < 2e-6);
        assert_non_null(json_object_get(row, "ratio"));
        assert_int_equal(json_integer_value(json_object_get(row, "rounds")), 3);
    }
    json_decref(report);
    expect(run("bench --shapes sd16"), 2, "", "--shapes: \"sd16\", expected sd15, sdxl, flux");
    expect(run("bench --shapes 1,2,3,4"), 2, "", "--shapes");
    expect(run("bench --shapes 1,1,8,8,8 --rounds 0"), 2, "", "--rounds: 0");
    expect(run("bench --shapes 1,1,8,8,8 --op nothing"), 2, "", "nothing");
    expect(run("bench --shapes 1,1,8,8,8 --op org.attnplug.nowhere"), 1, "is in none of",
           "no op took any of the shapes");
    expect(run("bench --shapes 1,1,8,8,8 --device cann"), 1, "", "expected cpu or cuda");
    expect(run("bench --shapes 1,1,8,8,8 --device cuda:77"), 1, "", "cuda: ");
    expect(run("check --device tpu x.so"), 2, "", "expected cpu, cuda");
}

/* What was measured is auto's order; a later timing of the same takes the earlier one's place. */
static void test_tune(void **state)
{
    (void)state;
    char folder[] = "/tmp/attnplug-tune-XXXXXX", remove[128];
    const char *home = getenv("XDG_CACHE_HOME");
    char *before = home ? strdup(home) : NULL;
    assert_non_null(mkdtemp(folder));
    setenv("XDG_CACHE_HOME", folder, 1);
    for (int i = 0; i < 2; i++) {
        expect(run("bench --tune --shapes 1,2,33,20,16 --rounds 3"), 0, "memory_efficient", "");
    }
    expect(run("why --shape 1,2,40,20,16"), 0, "measured at 1,2,33,20,16", "");
    expect(run("why --shape 1,2,4000,20,16"), 0, "(built-in order", "");
    expect(run("bench --tune --op math --shapes 1,1,8,8,8"), 2, "", "--tune");
    (void)snprintf(remove, sizeof remove,
                   "test $(cat %s/attnplug/order-* | grep -c memory_efficient) = 1 && rm -r %s",
                   folder, folder);
    assert_int_equal(system(remove), 0); /* NOLINT: the words are this test's own */
    before ? setenv("XDG_CACHE_HOME", before, 1) : unsetenv("XDG_CACHE_HOME");
    free(before);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_usage),       cmocka_unit_test(test_version),
        cmocka_unit_test(test_pages),       cmocka_unit_test(test_list),
        cmocka_unit_test(test_no_control),  cmocka_unit_test(test_names),
        cmocka_unit_test(test_why),         cmocka_unit_test(test_why_many),
        cmocka_unit_test(test_attend),      cmocka_unit_test(test_attend_errors),
        cmocka_unit_test(test_attend_less), cmocka_unit_test(test_layer_errors),
        cmocka_unit_test(test_folders),     cmocka_unit_test(test_bench),
        cmocka_unit_test(test_bench_slow),  cmocka_unit_test(test_tune),
    };
    if (argc < 4) {
        (void)fprintf(stderr, "usage: %s ATTNPLUG GOLDEN OP.so\n", argv[0]);
        return 2;
    }
    tool = argv[1];
    golden = argv[2];
    no_lse = realpath(argv[3], NULL);
    int failures = no_lse ? cmocka_run_group_tests(tests, NULL, NULL) : 2;
    free(no_lse);
    return failures;
}
