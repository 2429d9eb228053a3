/* image_model.h: a model of tiny-sd1's parts with an image encoder, a safety checker and a feature
 * extractor of tiny-image, as links in a folder of its own, and what tests of it share. */
#ifndef ATTNPLUG_TESTS_IMAGE_MODEL_H
#define ATTNPLUG_TESTS_IMAGE_MODEL_H

#include "golden.h"

#include <unistd.h>

#include "attn_sag.h"

enum { PATH = 4608 };

static const char *golden_folder;
static const char *plugin_folder;
static attn_registry *registry;

static char model[] = "/tmp/attnplug-pictures-XXXXXX";
static char said[4096]; /* what was logged since it was last emptied */

static inline void remember(void *ctx, int32_t level, const char *text)
{
    (void)ctx;
    (void)level;
    text_append(said, sizeof said, text);
    text_append(said, sizeof said, "\n");
}

static inline void part_link(const char *from, const char *part)
{
    char source[4096];
    char target[256];
    char folder[4096];
    if (golden_folder[0] == '/') {
        snprintf(folder, sizeof folder, "%s", golden_folder);
    } else {
        char *here = realpath(golden_folder, NULL);
        assert_non_null(here);
        snprintf(folder, sizeof folder, "%s", here);
        free(here);
    }
    snprintf(target, sizeof target, "%s/%s", model, part);
    unlink(target);
    if (from) {
        assert_true(snprintf(source, sizeof source, "%.3000s/models/%s/%s", folder, from, part) >
                    0);
        assert_int_equal(symlink(source, target), 0);
    }
}

static inline void index_write(const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/model_index.json", model);
    unlink(path);
    FILE *file = text ? fopen(path, "w") : NULL;
    if (file) {
        fputs(text, file);
        assert_int_equal(fclose(file), 0);
    }
}

static inline int setup(void **state)
{
    ATTN_ERROR_ON(err, 1024);
    const char *paths[] = {plugin_folder};
    const attn_registry_options options = {.size = sizeof options,
                                           .flags =
                                               ATTN_REGISTRY_ONLY_PATHS | ATTN_REGISTRY_TRUST_ALL,
                                           .paths = paths,
                                           .n_paths = 1};
    (void)state;
    if (!mkdtemp(model) || attn_registry_open(&options, &registry, &err)) {
        print_error("%s\n", err.text);
        return -1;
    }
    static const char *const own[] = {"unet", "vae", "text_encoder", "scheduler"};
    for (size_t i = 0; i < 4; i++) {
        part_link("tiny-sd1", own[i]);
    }
    part_link("tiny-image", "image_encoder");
    part_link("tiny-image", "safety_checker");
    part_link("tiny-image", "feature_extractor");
    return 0;
}

static inline int teardown(void **state)
{
    static const char *const parts[] = {"unet",
                                        "vae",
                                        "text_encoder",
                                        "scheduler",
                                        "image_encoder",
                                        "safety_checker",
                                        "feature_extractor"};
    (void)state;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        part_link(NULL, parts[i]);
    }
    index_write(NULL);
    rmdir(model);
    attn_registry_close(registry);
    return 0;
}

static inline attn_tensor tensor_of_golden(const safetensors *file, const char *name)
{
    return tensor_view(golden_get(file, "%s", name));
}

static inline void open_refused(const attn_sag_open_options *o, const char *first,
                                const char *second)
{
    ATTN_ERROR_ON(err, 1024);
    attn_sag *sag = NULL;
    attn_status status = attn_sag_open(registry, o, &sag, &err);
    if (!status || !strstr(err.text, first) || !strstr(err.text, second) ||
        strchr(err.text, '\n')) {
        fail_msg("status %d, \"%s\"; expected \"%s\", \"%s\"", status, err.text, first, second);
    }
    assert_null(sag);
}

/* Every such test's: the folder of stored references, that of plugins. */
static inline void arguments_take(int argc, char **argv)
{
    assert_true(argc == 3);
    golden_folder = argv[1];
    plugin_folder = argv[2];
}

#endif
