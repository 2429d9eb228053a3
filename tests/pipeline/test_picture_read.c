/* Pictures as Pillow 10.2 decodes and resizes them, and as transformers' CLIPImageProcessor hands
 * them to an encoder: to the byte and to the last bit.
 *
 * Argument: the folder of stored references. */
#include "golden.h"

#include <dirent.h>
#include <unistd.h>

#include "image_processor.h"

static const char *golden_folder;
static safetensors *golden;

static char *path_of(const char *name)
{
    char *path = NULL;
    assert_true(asprintf(&path, "%s/pictures/%s", golden_folder, name) > 0);
    return path;
}

static int is_built(const char *name)
{
    return !(strstr(name, ".jpg") && !ATTNPLUG_JPEG) && !(strstr(name, ".webp") && !ATTNPLUG_WEBP);
}

/* A stored picture; its pixels are the file's. */
static struct picture stored(const char *name)
{
    const safetensors_tensor *t = golden_get(golden, "%s", name);
    return (struct picture){(uint8_t *)(uintptr_t)t->data, (size_t)t->shape[0],
                            (size_t)t->shape[1]};
}

static void test_decoding(void **state)
{
    static const char prefix[] = "decoded.";
    int seen = 0;
    (void)state;
    for (size_t i = 0; i < safetensors_count(golden); i++) {
        const safetensors_tensor *t = safetensors_at(golden, i);
        ATTN_ERROR_ON(err, 512);
        struct picture p;
        if (strncmp(t->name, prefix, sizeof prefix - 1) != 0) {
            continue;
        }
        char *path = path_of(t->name + sizeof prefix - 1);
        attn_status status = picture_read(path, &p, &err);
        if (!is_built(path)) {
            assert_int_equal(status, ATTN_UNSUPPORTED);
            assert_non_null(strstr(err.text, "-dev"));
        } else if (status) {
            fail_msg("%s", err.text);
        } else {
            assert_int_equal(p.height, t->shape[0]);
            assert_int_equal(p.width, t->shape[1]);
            size_t wrong = 0;
            for (size_t k = 0; k < t->bytes; k++) {
                wrong += p.pixels[k] != ((const uint8_t *)t->data)[k];
            }
            if (wrong) {
                fail_msg("%s: %zu of %zu samples differ", path, wrong, (size_t)t->bytes);
            }
        }
        picture_clear(&p);
        free(path);
        seen++;
    }
    assert_true(seen > 25);
}

static enum picture_filter filter_of(const char *name)
{
    static const char *const names[] = {"", "lanczos", "bilinear", "bicubic", "box", "hamming"};
    for (int i = 1; i < 6; i++) {
        if (strcmp(names[i], name) == 0) {
            return (enum picture_filter)i;
        }
    }
    fail_msg("no filter %s", name);
    return FILTER_BICUBIC;
}

static void test_resizing(void **state)
{
    int seen = 0;
    (void)state;
    for (size_t i = 0; i < safetensors_count(golden); i++) {
        const safetensors_tensor *t = safetensors_at(golden, i);
        ATTN_ERROR_ON(err, 512);
        int source;
        size_t height;
        size_t width;
        char name[32];
        char from[32];
        struct picture out;
        if (sscanf(t->name, "resize.%d.%31[a-z].%zux%zu", &source, name, &height, &width) != 4) {
            continue;
        }
        snprintf(from, sizeof from, "resize.in.%d", source);
        const struct picture in = stored(from);
        if (picture_resize(&in, height, width, filter_of(name), &out, &err)) {
            fail_msg("%s: %s", t->name, err.text);
        }
        assert_int_equal(out.height, t->shape[0]);
        assert_int_equal(out.width, t->shape[1]);
        if (memcmp(out.pixels, t->data, t->bytes) != 0) {
            fail_msg("%s differs", t->name);
        }
        picture_clear(&out);
        seen++;
    }
    assert_true(seen > 12);
}

static attn_status config_parse(const char *text, struct image_processor *p, attn_error *err)
{
    char path[] = "/tmp/attnplug-processor-XXXXXX";
    int number = mkstemp(path);
    FILE *file = number >= 0 ? fdopen(number, "w") : NULL;
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
    attn_status status = image_processor_read(path, p, err);
    unlink(path);
    return status;
}

static void test_processing(void **state)
{
    (void)state;
    for (int i = 0; i < 7; i++) {
        ATTN_ERROR_ON(err, 512);
        char name[32];
        snprintf(name, sizeof name, "preprocess.%d", i);
        const safetensors_tensor *want = golden_get(golden, "%s", name);
        const struct picture in = stored(i % 2 ? "resize.in.0" : "decoded.rgb_420.jpg");
        struct image_processor p;
        float *pixels;
        size_t height;
        size_t width;
        if (config_parse(safetensors_metadata(golden, name), &p, &err) ||
            image_process(&p, &in, &pixels, &height, &width, &err)) {
            fail_msg("%s: %s", name, err.text);
        }
        assert_int_equal(height, want->shape[1]);
        assert_int_equal(width, want->shape[2]);
        if (memcmp(pixels, want->data, want->bytes) != 0) {
            fail_msg("%s: off by %g", name,
                     largest_difference(pixels, want->data, want->bytes / sizeof(float)));
        }
        free(pixels);
    }
}

static void test_bad_configs(void **state)
{
    static const struct {
        const char *text, *named;
    } cases[] = {{"{\"size\": 0}", "size"},
                 {"{\"size\": {\"longest_edge\": 9}}", "size"},
                 {"{\"size\": 99999999999}", "size"},
                 {"{\"crop_size\": {\"height\": 5}}", "crop_size"},
                 {"{\"crop_size\": \"5\"}", "crop_size"},
                 {"{\"resample\": 0}", "resample"},
                 {"{\"image_std\": [1, 0, 1]}", "image_std"},
                 {"{\"image_mean\": [1, 2]}", "image_mean"},
                 {"{\"image_mean\": [1, 2, \"3\"]}", "image_mean"},
                 {"{\"rescale_factor\": true}", "rescale_factor"},
                 {"{\"do_resize\": 1}", "do_resize"},
                 {"[]", "object"},
                 {"{\"size\"", "processor"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ATTN_ERROR_ON(err, 512);
        struct image_processor p = {.shortest = -7};
        attn_status status = config_parse(cases[i].text, &p, &err);
        if (!status || !strstr(err.text, cases[i].named)) {
            fail_msg("%s: status %d, \"%s\"", cases[i].text, status, err.text);
        }
        assert_int_equal(p.shortest, -7);
    }
}

static void refused(const char *name, const uint8_t *bytes, size_t n)
{
    ATTN_ERROR_ON(err, 512);
    struct picture p;
    attn_status status = picture_decode(bytes, n, name, &p, &err);
    if (!status || !strstr(err.text, name) || strchr(err.text, '\n')) {
        fail_msg("%s, %zu bytes: status %d, \"%s\"", name, n, status, err.text);
    }
    assert_null(p.pixels);
}

/* Every file cut to every length short of what its pixels need. */
static void test_truncated(void **state)
{
    static const char *const names[] = {"rgb8.png",      "palette4.png", "grey16.png",
                                        "rgb_420.jpg",   "cmyk.jpg",     "rgb_422_progressive.jpg",
                                        "lossless.webp", "lossy.webp",   "alpha.webp"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = path_of(names[i]);
        FILE *file = fopen(path, "rb");
        uint8_t bytes[4096];
        assert_non_null(file);
        const size_t n = fread(bytes, 1, sizeof bytes, file);
        fclose(file);
        /* what stands after the pixels: PNG's last chunks and JPEG's end, of which a byte or two
         * may be missing without anybody's noticing; WebP's padding */
        for (size_t cut = 0; cut + (strstr(path, ".jpg") ? 3 : 2) < n; cut++) {
            uint8_t *exact = malloc(cut + 1);
            assert_non_null(exact);
            memcpy(exact, bytes, cut);
            refused(names[i], exact, cut);
            free(exact);
        }
        free(path);
    }
}

static void test_hostile(void **state)
{
    /* a PNG and a JPEG header of 2^31 and 65535 pixels a side, with nothing behind them */
    static const uint8_t png[] = {0x89, 'P',  'N', 'G', 13,  10,   26,   10,   0,    0,    0,
                                  13,   'I',  'H', 'D', 'R', 0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff,
                                  0xff, 0xff, 8,   2,   0,   0,    0,    0x2d, 0x2d, 0x2d, 0x2d};
    static const uint8_t jpeg[] = {0xff, 0xd8, 0xff, 0xc0, 0,    17, 8, 0xff, 0xff, 0xff, 0xff, 3,
                                   1,    0x11, 0,    2,    0x11, 0,  3, 0x11, 0,    0xff, 0xda, 0,
                                   12,   3,    1,    0,    2,    0,  3, 0,    0,    63,   0};
    ATTN_ERROR_ON(err, 512);
    struct picture p;
    struct picture small = {(uint8_t[]){1, 2, 3}, 1, 1};
    (void)state;
    refused("hostile.png", png, sizeof png);
    refused("hostile.jpg", jpeg, sizeof jpeg);
    refused("empty.png", png, 0);
    refused("a text", (const uint8_t *)"GIF89a, or what not", 19);
    assert_int_equal(picture_read("/no/such/picture.png", &p, &err), ATTN_NOT_FOUND);
    assert_non_null(strstr(err.text, "/no/such/picture.png"));
    assert_int_equal(picture_read("/tmp", &p, &err), ATTN_INVALID);
    assert_non_null(strstr(err.text, "a folder"));
    assert_int_equal(picture_resize(&small, 1 << 20, 1 << 20, FILTER_BICUBIC, &p, &err),
                     ATTN_INVALID);
    assert_int_equal(picture_resize(&small, 0, 1, FILTER_BICUBIC, &p, &err), ATTN_INVALID);
    assert_null(p.pixels);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decoding),   cmocka_unit_test(test_resizing),
        cmocka_unit_test(test_processing), cmocka_unit_test(test_bad_configs),
        cmocka_unit_test(test_truncated),  cmocka_unit_test(test_hostile),
    };
    assert_true(argc == 2);
    golden_folder = argv[1];
    golden = golden_open(golden_folder, "pictures");
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    safetensors_close(golden);
    return failed;
}
