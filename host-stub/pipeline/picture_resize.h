/* picture_resize.h: pictures in another size, to the byte as Pillow's Image.resize makes them. */
#ifndef ATTNPLUG_PIPELINE_PICTURE_RESIZE_H
#define ATTNPLUG_PIPELINE_PICTURE_RESIZE_H

#include "picture_read.h"

/* Under Pillow's numbers, as preprocessor_config.json has them; 0, nearest, is not here. */
enum picture_filter {
    FILTER_LANCZOS = 1,
    FILTER_BILINEAR = 2,
    FILTER_BICUBIC = 3,
    FILTER_BOX = 4,
    FILTER_HAMMING = 5,
};

/* Separable filters, columns first, widened by the factor that a picture shrinks by; weights of 22
 * fractional bits, 8 bits between the passes (Pillow 10.2, src/libImaging/Resample.c).  *out is the
 * caller's to clear; it is not `in`. */
attn_status picture_resize(const struct picture *in, size_t height, size_t width,
                           enum picture_filter filter, struct picture *out, attn_error *err);

#endif
