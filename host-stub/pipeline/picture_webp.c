/* picture_webp.c: WebP files by libwebp, where it was there at build time. */
#include "picture_read.h"

#if ATTNPLUG_WEBP
#include <webp/decode.h>

static const char *wrong_text(VP8StatusCode code)
{
    switch (code) {
    case VP8_STATUS_OUT_OF_MEMORY:
        return "out of memory";
    case VP8_STATUS_NOT_ENOUGH_DATA:
        return "the file ends too early";
    case VP8_STATUS_UNSUPPORTED_FEATURE:
        return "it uses what libwebp does not know";
    default:
        return "its data are damaged";
    }
}

static attn_status failed(const char *name, VP8StatusCode code, attn_error *err)
{
    return attn_fail(err, ATTN_INVALID, "%s: cannot read the WebP: %s", name, wrong_text(code));
}

attn_status webp_decode(const uint8_t *bytes, size_t n, const char *name, struct picture *out,
                        attn_error *err)
{
    WebPDecoderConfig config;
    if (!WebPInitDecoderConfig(&config)) {
        return attn_fail(err, ATTN_INTERNAL, "%s: libwebp is not the one this was built for", name);
    }
    VP8StatusCode code = WebPGetFeatures(bytes, n, &config.input);
    if (code != VP8_STATUS_OK) {
        return failed(name, code, err);
    }
    if (config.input.has_animation) {
        return attn_fail(err, ATTN_UNSUPPORTED, "%s: an animation, expected one picture", name);
    }
    attn_status status =
        picture_take(name, (uint64_t)config.input.height, (uint64_t)config.input.width, out, err);
    if (status) {
        return status;
    }
    config.output.colorspace = MODE_RGB;
    config.output.is_external_memory = 1;
    config.output.u.RGBA.rgba = out->pixels;
    config.output.u.RGBA.stride = (int)(3 * out->width);
    config.output.u.RGBA.size = 3 * out->width * out->height;
    code = WebPDecode(bytes, n, &config);
    WebPFreeDecBuffer(&config.output);
    return code == VP8_STATUS_OK ? ATTN_OK : failed(name, code, err);
}
#else
attn_status webp_decode(const uint8_t *bytes, size_t n, const char *name, struct picture *out,
                        attn_error *err)
{
    (void)bytes;
    (void)n;
    (void)out;
    return attn_fail(err, ATTN_UNSUPPORTED,
                     "%s: a WebP, but this build has no libwebp (libwebp-dev); PNG is read", name);
}
#endif
