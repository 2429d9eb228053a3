/* Pictures: what libpng reads back is what was written, and nothing half-written stays behind. */
#include "golden.h"

#include <dirent.h>
#include <png.h>
#include <sys/stat.h>
#include <unistd.h>

#include "picture.h"

static char scratch[] = "/tmp/attnplug-picture-XXXXXX";

static void path_in(char *path, size_t size, const char *name)
{
    snprintf(path, size, "%s/%s", scratch, name);
}

static size_t files_left(void)
{
    size_t count = 0;
    DIR *folder = opendir(scratch);
    assert_non_null(folder);
    for (struct dirent *entry; (entry = readdir(folder));) {
        count += entry->d_name[0] != '.';
    }
    closedir(folder);
    return count;
}

/* Reads with libpng's full interface, since the text chunks are wanted too. */
static void picture_check(const char *path, const uint8_t *want, size_t height, size_t width,
                          const char *parameters)
{
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    FILE *file = fopen(path, "rb");
    assert_true(png && info && file);
    if (setjmp(png_jmpbuf(png))) {
        fail_msg("%s is not a PNG", path);
    }
    png_init_io(png, file);
    png_read_png(png, info, PNG_TRANSFORM_IDENTITY, NULL);
    assert_int_equal(png_get_image_height(png, info), height);
    assert_int_equal(png_get_image_width(png, info), width);
    assert_int_equal(png_get_color_type(png, info), PNG_COLOR_TYPE_RGB);
    assert_int_equal(png_get_bit_depth(png, info), 8);
    for (size_t y = 0; y < height; y++) {
        assert_memory_equal(png_get_rows(png, info)[y], want + y * width * 3, width * 3);
    }
    png_textp texts = NULL;
    int count = png_get_text(png, info, &texts, NULL) ? png_get_text(png, info, &texts, NULL) : 0;
    assert_int_equal(count, parameters ? 1 : 0);
    if (parameters) {
        assert_string_equal(texts[0].key, "parameters");
        assert_string_equal(texts[0].text, parameters);
    }
    fclose(file);
    png_destroy_read_struct(&png, &info, NULL);
}

static void test_round_trip(void **state)
{
    static const char *const texts[] = {NULL, "red heart\nSteps: 25, Seed: 0", "Herz aus Ä und 猫"};
    enum { HEIGHT = 13, WIDTH = 7 };
    uint8_t pixels[HEIGHT * WIDTH * 3];
    char path[256];
    (void)state;
    for (size_t i = 0; i < sizeof pixels; i++) {
        pixels[i] = (uint8_t)(i * 37);
    }
    path_in(path, sizeof path, "a.png");
    for (int i = 0; i < 3; i++) {
        ATTN_ERROR_ON(err, 256);
        assert_int_equal(picture_write_png(path, pixels, HEIGHT, WIDTH, texts[i], &err), ATTN_OK);
        picture_check(path, pixels, HEIGHT, WIDTH, texts[i]);
        assert_int_equal(files_left(), 1);
    }
    unlink(path);
}

static void test_unwritable(void **state)
{
    ATTN_ERROR_ON(err, 512);
    const uint8_t pixel[3] = {1, 2, 3};
    char path[256];
    (void)state;
    assert_int_equal(picture_write_png("/dev/null/a.png", pixel, 1, 1, NULL, &err), ATTN_IO);
    assert_non_null(strstr(err.text, "/dev/null/a.png"));
    assert_int_equal(picture_write_png(scratch, pixel, 1, 1, NULL, &err), ATTN_INVALID);
    assert_non_null(strstr(err.text, "is a folder"));
    path_in(path, sizeof path, "a.png");
    assert_int_equal(picture_write_png(path, pixel, 0, 1, NULL, &err), ATTN_INVALID);
    /* A device that is full from the start: the failure comes with the flush. */
    assert_int_equal(picture_write_png("/dev/full", pixel, 1, 1, NULL, &err), ATTN_IO);
    /* The same while the picture is encoded, which is longer than the stream's buffer. */
    enum { SIDE = 64 };
    uint8_t noise[SIDE * SIDE * 3];
    uint32_t number = 1;
    for (size_t i = 0; i < sizeof noise; i++) {
        number = number * 1664525 + 1013904223;
        noise[i] = (uint8_t)(number >> 24);
    }
    assert_int_equal(picture_write_png("/dev/full", noise, SIDE, SIDE, NULL, &err), ATTN_IO);
    assert_non_null(strstr(err.text, "/dev/full: cannot write: No space left on device"));
    assert_int_equal(files_left(), 0);
}

/* A link stays a link, and what it points to is replaced. */
static void test_link(void **state)
{
    ATTN_ERROR_ON(err, 512);
    const uint8_t pixel[3] = {1, 2, 3};
    char path[256];
    char link[256];
    struct stat info;
    (void)state;
    path_in(path, sizeof path, "a.png");
    path_in(link, sizeof link, "b.png");
    assert_int_equal(picture_write_png(path, pixel, 1, 1, NULL, &err), ATTN_OK);
    assert_int_equal(symlink("a.png", link), 0);
    assert_int_equal(picture_write_png(link, pixel, 1, 1, "x", &err), ATTN_OK);
    assert_int_equal(lstat(link, &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    picture_check(path, pixel, 1, 1, "x");
    unlink(link);
    unlink(path);
    assert_int_equal(files_left(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_unwritable),
        cmocka_unit_test(test_link),
    };
    if (!mkdtemp(scratch)) {
        return 2;
    }
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(scratch);
    return failures;
}
