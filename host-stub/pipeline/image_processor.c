#include "image_processor.h"

#include <stdlib.h>
#include <string.h>

#include "attn_host.h"
#include "config.h"
#include "json_file.h"

enum { LONGEST_SIDE = 1 << 14 };

struct image_processor image_processor_default(void)
{
    return (struct image_processor){.resizes = 1,
                                    .crops = 1,
                                    .rescales = 1,
                                    .normalises = 1,
                                    .shortest = 224,
                                    .crop_height = 224,
                                    .crop_width = 224,
                                    .filter = FILTER_BICUBIC,
                                    .factor = 1.0 / 255,
                                    .mean = {0.48145466, 0.4578275, 0.40821073},
                                    .std = {0.26862954, 0.26130258, 0.27577711}};
}

/* -- preprocessor_config.json ------------------------------------------------------------------ */

static int64_t side_of(const json_t *value)
{
    const int64_t side = json_is_integer(value) ? json_integer_value(value) : 0;
    return side > 0 && side <= LONGEST_SIDE ? side : 0;
}

/* A number, {"shortest_edge": n} where that is allowed, or {"height": h, "width": w}; 0 where it is
 * none of them. */
static int32_t size_parse(const json_t *value, int64_t *shortest, int64_t *height, int64_t *width)
{
    const int64_t edge =
        side_of(json_is_object(value) ? json_object_get(value, "shortest_edge") : value);
    if (edge) {
        *shortest = edge;
        return 1;
    }
    *shortest = 0;
    *height = side_of(json_object_get(value, "height"));
    *width = side_of(json_object_get(value, "width"));
    return *height && *width;
}

static void sizes_read(struct config *c, struct image_processor *p)
{
    const json_t *size = config_value(c, "size");
    const json_t *crop = config_value(c, "crop_size");
    int64_t square = 0;
    if (size && !size_parse(size, &p->shortest, &p->height, &p->width)) {
        config_refuse(c, ATTN_INVALID, "size",
                      "a number from 1 to 16384, a shortest_edge, or a height and a width");
    }
    if (crop && !size_parse(crop, &square, &p->crop_height, &p->crop_width)) {
        config_refuse(c, ATTN_INVALID, "crop_size",
                      "a number from 1 to 16384, or a height and a width");
    }
    if (square) {
        p->crop_height = p->crop_width = square;
    }
}

attn_status image_processor_read(const char *path, struct image_processor *out, attn_error *err)
{
    struct image_processor p = image_processor_default();
    struct config *c = NULL;
    json_t *root = NULL;
    attn_status status = json_file_read(path, &root, err);
    if (!status) {
        status = config_open_json(root, path, &c, err);
    }
    json_decref(root);
    if (status) {
        return status;
    }
    p.resizes = config_bool(c, "do_resize", 1);
    p.crops = config_bool(c, "do_center_crop", 1);
    p.rescales = config_bool(c, "do_rescale", 1);
    p.normalises = config_bool(c, "do_normalize", 1);
    sizes_read(c, &p);
    p.filter = (enum picture_filter)config_int(c, "resample", FILTER_BICUBIC, FILTER_LANCZOS,
                                               FILTER_HAMMING);
    p.factor = config_float(c, "rescale_factor", 1.0 / 255);
    config_floats_each(c, "image_mean", 3, p.mean);
    config_floats_each(c, "image_std", 3, p.std);
    if ((float)p.std[0] == 0 || (float)p.std[1] == 0 || (float)p.std[2] == 0) {
        config_refuse(c, ATTN_INVALID, "image_std", "numbers other than 0");
    }
    status = config_done(c, 0, NULL);
    config_close(c);
    if (!status) {
        *out = p;
    }
    return status;
}

attn_status image_processor_fits(const struct image_processor *p, const char *path, int64_t side,
                                 const char *who, attn_error *err)
{
    const int64_t height = p->crops ? p->crop_height : p->height;
    const int64_t width = p->crops ? p->crop_width : p->width;
    if (!p->crops && (!p->resizes || p->shortest)) {
        return attn_fail(err, ATTN_INVALID,
                         "%s: neither a crop_size nor a size of height and width, so pictures"
                         " would reach the encoder in sizes of their own",
                         path);
    }
    if (height != side || width != side) {
        return attn_fail(err, ATTN_INVALID, "%s: pictures of %lld x %lld, but %s takes %lld x %lld",
                         path, (long long)width, (long long)height, who, (long long)side,
                         (long long)side);
    }
    return ATTN_OK;
}

/* -- a picture --------------------------------------------------------------------------------- */

static attn_status resized(const struct image_processor *p, const struct picture *in,
                           struct picture *out, attn_error *err)
{
    size_t height = (size_t)p->height;
    size_t width = (size_t)p->width;
    if (p->shortest) {
        const int upright = in->width <= in->height;
        const size_t edge = (size_t)p->shortest;
        const size_t shorter = upright ? in->width : in->height;
        const size_t longer = upright ? in->height : in->width;
        const size_t other = (size_t)((double)(edge * longer) / (double)shorter);
        height = upright ? other : edge;
        width = upright ? edge : other;
    }
    return picture_resize(in, height, width, p->filter, out, err);
}

/* Python's floor division by two. */
static int64_t half(int64_t n)
{
    return n >= 0 ? n / 2 : -((1 - n) / 2);
}

/* Where the result begins in the picture along one axis; what lies outside is black.  A picture
 * that is too small on either axis is first laid into the middle of a larger one. */
static int64_t crop_start(int64_t size, int64_t crop, int padded)
{
    const int64_t start = half(size - crop);
    const int64_t larger = size > crop ? size : crop;
    const int64_t pad = padded ? half(larger - size) : 0;
    const int64_t from = start + pad > 0 ? start + pad : 0;
    return from - pad;
}

/* Samples as floats, scaled and normalised as NumPy does it: scaled in double, the rest in float.
 */
static void planes_fill(const struct image_processor *p, const struct picture *in, float *out,
                        int64_t height, int64_t width, int64_t top, int64_t left)
{
    for (int c = 0; c < 3; c++) {
        const float mean = (float)p->mean[c];
        const float std = (float)p->std[c];
        for (int64_t y = top; y < top + height; y++) {
            for (int64_t x = left; x < left + width; x++) {
                const int inside =
                    y >= 0 && x >= 0 && y < (int64_t)in->height && x < (int64_t)in->width;
                const size_t at = 3 * ((size_t)y * in->width + (size_t)x) + (size_t)c;
                const uint8_t sample = inside ? in->pixels[at] : 0;
                const float value = p->rescales ? (float)(sample * p->factor) : (float)sample;
                *out++ = p->normalises ? (value - mean) / std : value;
            }
        }
    }
}

attn_status image_process(const struct image_processor *p, const struct picture *picture,
                          float **pixels, size_t *height, size_t *width, attn_error *err)
{
    struct picture made = {0};
    const struct picture *in = picture;
    if (p->resizes) {
        attn_status status = resized(p, picture, &made, err);
        if (status) {
            return status;
        }
        in = &made;
    }
    const int64_t h = (int64_t)in->height;
    const int64_t w = (int64_t)in->width;
    const int64_t to_h = p->crops ? p->crop_height : h;
    const int64_t to_w = p->crops ? p->crop_width : w;
    const int padded = to_h > h || to_w > w;
    *height = (size_t)to_h;
    *width = (size_t)to_w;
    *pixels = malloc(3 * (size_t)to_h * (size_t)to_w * sizeof **pixels);
    if (*pixels) {
        planes_fill(p, in, *pixels, to_h, to_w, crop_start(h, to_h, padded),
                    crop_start(w, to_w, padded));
    }
    picture_clear(&made);
    return *pixels ? ATTN_OK
                   : attn_fail(err, ATTN_NOMEM, "no memory for a picture of %lld x %lld",
                               (long long)to_w, (long long)to_h);
}
