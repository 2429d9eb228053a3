/* image_processor.h: pictures as CLIP's image encoder wants them: transformers' CLIPImageProcessor
 * (v4.37.2, models/clip/image_processing_clip.py), to the last bit. */
#ifndef ATTNPLUG_PIPELINE_IMAGE_PROCESSOR_H
#define ATTNPLUG_PIPELINE_IMAGE_PROCESSOR_H

#include "picture_resize.h"

struct image_processor {
    int32_t resizes, crops, rescales, normalises;
    int64_t shortest;      /* the shorter side becomes this long; 0: height and width as below */
    int64_t height, width; /* after resizing */
    int64_t crop_height, crop_width;
    enum picture_filter filter;
    double factor;
    double mean[3], std[3];
};

/* What CLIPImageProcessor() without arguments is: 224 pixels, OpenAI's mean and deviation. */
struct image_processor image_processor_default(void);
/* Of a preprocessor_config.json; what it leaves out is as in the default. */
attn_status image_processor_read(const char *path, struct image_processor *out, attn_error *err);

/* ATTN_INVALID unless every picture comes out as `side` x `side`, which `who` takes; path is for
 * texts. */
attn_status image_processor_fits(const struct image_processor *p, const char *path, int64_t side,
                                 const char *who, attn_error *err);

/* fp32 planes [3, height, width] of what the processor makes of a picture; *pixels is the caller's
 * to free. */
attn_status image_process(const struct image_processor *p, const struct picture *picture,
                          float **pixels, size_t *height, size_t *width, attn_error *err);

#endif
