/* fuzz_picture.c: any bytes as a picture in PNG, JPEG or WebP: an error with a text, or pixels that
 * a processor makes an encoder's input of. */
#include "bytes_file.h"
#include "image_processor.h"

#include <math.h>
#include <string.h>

/* Larger ones are decoded too, but not resized: that is not what is looked for here. */
enum { MOST_PIXELS = 1 << 16 };

static void process(const struct picture *p)
{
    ATTN_ERROR_ON(err, 256);
    struct image_processor processor = image_processor_default();
    float *pixels = NULL;
    size_t height = 0;
    size_t width = 0;
    processor.shortest = processor.crop_height = processor.crop_width = 16;
    if (image_process(&processor, p, &pixels, &height, &width, &err)) {
        /* a side so long that its other one would be beyond the limit */
        if (!err_text[0])
            abort();
        return;
    }
    for (size_t i = 0; i < 3 * height * width; i++)
        if (!isfinite(pixels[i]))
            abort();
    free(pixels);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ATTN_ERROR_ON(err, 256);
    struct picture p;
    struct bytes_file f = bytes_file_open(data, size);
    attn_status status = picture_read(f.path, &p, &err);
    bytes_file_close(&f);
    if (status) {
        if (!strstr(err_text, f.path) || p.pixels)
            abort();
        return 0;
    }
    volatile uint64_t sum = 0;
    for (size_t i = 0; i < 3 * p.height * p.width; i++)
        sum = sum + p.pixels[i];
    if (p.height * p.width <= MOST_PIXELS)
        process(&p);
    picture_clear(&p);
    return 0;
}
