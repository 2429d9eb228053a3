/* fuzz_config.c: any bytes as a UNet's config.json: an error with a text, or numbers within their
 * ranges. */
#include "folder_file.h"
#include "unet_config.h"

static void expect_sane(const struct unet_config *u)
{
    if (u->n_levels < 1 || u->n_levels > UNET_MAX_BLOCKS || u->in_channels < 1 || u->groups < 1 ||
        u->conv_in_kernel % 2 == 0)
        abort();
    for (uint32_t i = 0; i < u->n_levels; i++)
        if (u->levels[i].channels < 1 || u->levels[i].layers < 1 || u->levels[i].heads < 1 ||
            u->levels[i].layers > UNET_MAX_LAYERS)
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ATTN_ERROR_ON(err, 256);
    struct unet_config config;
    int fd = folder_put("config.json", data ? data : (const uint8_t *)"", size);
    const struct model_source source = {.folder = folder_of_bytes()};
    if (unet_config_read(&source, &config, &err) == ATTN_OK)
        expect_sane(&config);
    else if (!err_text[0])
        abort(); /* an error without a text */
    folder_close(fd);
    return 0;
}
