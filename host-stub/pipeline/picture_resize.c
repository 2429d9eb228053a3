#include "picture_resize.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FRACTION_BITS = 22 };

/* -- filters: their weight at a distance, and how far they reach ------------------------------- */

static double box(double x)
{
    return x > -0.5 && x <= 0.5 ? 1 : 0;
}

static double bilinear(double x)
{
    x = fabs(x);
    return x < 1 ? 1 - x : 0;
}

static double hamming(double x)
{
    x = fabs(x);
    if (x == 0) {
        return 1;
    }
    const double t = x * M_PI;
    return x < 1 ? sin(t) / t * (0.54 + 0.46 * cos(t)) : 0;
}

/* Keys' kernel with a = -1/2. */
static double bicubic(double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (x < 1) {
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    }
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

static double sinc(double x)
{
    return x == 0 ? 1 : sin(x * M_PI) / (x * M_PI);
}

static double lanczos(double x)
{
    return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0;
}

static const struct {
    double (*weight)(double x);
    double reach;
} filters[] = {[FILTER_LANCZOS] = {lanczos, 3},
               [FILTER_BILINEAR] = {bilinear, 1},
               [FILTER_BICUBIC] = {bicubic, 2},
               [FILTER_BOX] = {box, 0.5},
               [FILTER_HAMMING] = {hamming, 1}};

/* -- one axis ---------------------------------------------------------------------------------- */

/* For each place of the result: the first place that it is made of, how many, and their weights. */
struct taps {
    size_t most;
    size_t *first, *count;
    int32_t *weights; /* [places, most] */
};

static void taps_free(struct taps *t)
{
    free(t->first);
    free(t->count);
    free(t->weights);
}

static attn_status no_memory(size_t n, attn_error *err)
{
    return attn_fail(err, ATTN_NOMEM, "no memory to resize a picture to %zu places", n);
}

/* Weights of one place, summing to one, rounded. */
static void place_fill(struct taps *t, size_t place, size_t from, double scale,
                       enum picture_filter filter, double *exact)
{
    const double wide = scale < 1 ? 1 : scale;
    const double reach = filters[filter].reach * wide;
    const double centre = ((double)place + 0.5) * scale;
    const double low = trunc(centre - reach + 0.5);
    const double high = trunc(centre + reach + 0.5);
    const size_t first = low < 0 ? 0 : (size_t)low;
    const size_t end = high > (double)from ? from : (size_t)high;
    double sum = 0;
    t->first[place] = first;
    t->count[place] = end - first;
    for (size_t i = first; i < end; i++) {
        exact[i - first] = filters[filter].weight(((double)i - centre + 0.5) * (1 / wide));
        sum += exact[i - first];
    }
    for (size_t i = 0; i < end - first; i++) {
        const double weight = (sum != 0 ? exact[i] / sum : exact[i]) * (1 << FRACTION_BITS);
        t->weights[place * t->most + i] = (int32_t)(weight < 0 ? weight - 0.5 : weight + 0.5);
    }
}

static attn_status taps_make(struct taps *t, size_t from, size_t to, enum picture_filter filter,
                             attn_error *err)
{
    const double scale = (double)from / (double)to;
    const double reach = filters[filter].reach * (scale < 1 ? 1 : scale);
    *t = (struct taps){.most = 2 * (size_t)ceil(reach) + 1};
    t->first = calloc(to, sizeof *t->first);
    t->count = calloc(to, sizeof *t->count);
    t->weights = calloc(to, t->most * sizeof *t->weights);
    double *exact = calloc(t->most, sizeof *exact);
    if (!t->first || !t->count || !t->weights || !exact) {
        free(exact);
        return no_memory(to, err);
    }
    for (size_t place = 0; place < to; place++) {
        place_fill(t, place, from, scale, filter, exact);
    }
    free(exact);
    return ATTN_OK;
}

/* The sum of `count` samples, `step` apart, to 8 bits. */
static uint8_t tap(const uint8_t *in, size_t step, size_t count, const int32_t *weights)
{
    int32_t sum = 1 << (FRACTION_BITS - 1);
    for (size_t i = 0; i < count; i++) {
        sum += in[i * step] * weights[i];
    }
    sum >>= FRACTION_BITS;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

/* Along one axis: rows are whole (height stays) or places of a column (width stays). */
static void pass_run(const struct picture *in, const struct taps *t, int columns,
                     const struct picture *out)
{
    const size_t step = columns ? 3 : 3 * in->width;
    for (size_t y = 0; y < out->height; y++) {
        for (size_t x = 0; x < out->width; x++) {
            const size_t place = columns ? x : y;
            const size_t at =
                columns ? y * in->width + t->first[place] : t->first[place] * in->width + x;
            for (size_t c = 0; c < 3; c++) {
                out->pixels[3 * (y * out->width + x) + c] = tap(
                    in->pixels + 3 * at + c, step, t->count[place], t->weights + place * t->most);
            }
        }
    }
}

static attn_status axis_resize(const struct picture *in, int columns, size_t to,
                               enum picture_filter filter, struct picture *out, attn_error *err)
{
    struct taps t;
    attn_status status = taps_make(&t, columns ? in->width : in->height, to, filter, err);
    if (!status) {
        status = picture_take("the resized picture", columns ? in->height : to,
                              columns ? to : in->width, out, err);
    }
    if (!status) {
        pass_run(in, &t, columns, out);
    }
    taps_free(&t);
    return status;
}

attn_status picture_resize(const struct picture *in, size_t height, size_t width,
                           enum picture_filter filter, struct picture *out, attn_error *err)
{
    struct picture between = {0};
    attn_status status;
    *out = (struct picture){0};
    /* picture_take checks this too, but after the tables of weights were made. */
    if (!height || !width || height > PICTURE_MOST_PIXELS / width) {
        return attn_fail(err, ATTN_INVALID, "a picture cannot be resized to %zu x %zu pixels",
                         width, height);
    }
    if (width == in->width) {
        status = picture_take("the resized picture", in->height, width, &between, err);
        if (!status) {
            memcpy(between.pixels, in->pixels, 3 * in->height * width);
        }
    } else {
        status = axis_resize(in, 1, width, filter, &between, err);
    }
    if (!status && height != in->height) {
        status = axis_resize(&between, 0, height, filter, out, err);
        picture_clear(&between);
        return status;
    }
    *out = between;
    return status;
}
