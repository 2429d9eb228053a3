#include "sag_files.h"

#include "attn_host.h"
#include "tensor_set.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const part_folders[] = {"unet", "vae", "text_encoder"};

static attn_status no_memory(const char *model, attn_error *err)
{
    return attn_fail(err, ATTN_NOMEM, "%s: no memory to load it", model);
}

/* A variant that no part has is most likely misspelt. */
static attn_status variant_check(const struct sag_files *files, attn_error *err)
{
    const size_t n = sizeof part_folders / sizeof *part_folders;
    int found = 0;
    for (size_t i = 0; i < n && !found; i++) {
        char *folder = NULL;
        if (asprintf(&folder, "%s/%s", files->model, part_folders[i]) < 0) {
            return no_memory(files->model, err);
        }
        found = variant_is_there(folder, files->variant);
        free(folder);
    }
    return found ? ATTN_OK
                 : attn_fail(err, ATTN_NOT_FOUND,
                             "%s: variant %s: no part of the model has a file of that variant",
                             files->model, files->variant);
}

static attn_status checkpoint_load(struct sag_files *files, const attn_sag_open_options *o,
                                   attn_error *err)
{
    if (files->variant) {
        return attn_fail(err, ATTN_INVALID,
                         "%s: variant %s: one file has no variants; a folder has", files->model,
                         files->variant);
    }
    return checkpoint_open(files->model, o->flags & ATTN_SAG_EMA, &files->checkpoint, err);
}

attn_status files_open(struct sag_files *files, const attn_sag_open_options *o, attn_error *err)
{
    struct stat info;
    *files = (struct sag_files){0};
    if (!o->model || !*o->model) {
        return attn_fail(err, ATTN_INVALID,
                         "model: none given, expected a model's folder or .safetensors file");
    }
    if (stat(o->model, &info) != 0) {
        return attn_fail(err, errno == ENOENT ? ATTN_NOT_FOUND : ATTN_IO,
                         "%s: %s, expected a model's folder or .safetensors file", o->model,
                         strerror(errno));
    }
    files->model = strdup(o->model);
    files->variant = o->variant ? strdup(o->variant) : NULL;
    if (!files->model || (o->variant && !files->variant)) {
        return no_memory(o->model, err);
    }
    if (!S_ISDIR(info.st_mode)) {
        return checkpoint_load(files, o, err);
    }
    if (o->flags & ATTN_SAG_EMA) {
        return attn_fail(err, ATTN_INVALID,
                         "%s: averaged weights are chosen in a single file; a folder holds one"
                         " kind",
                         o->model);
    }
    return files->variant ? variant_check(files, err) : ATTN_OK;
}

void files_close(struct sag_files *files)
{
    checkpoint_close(files->checkpoint);
    free(files->variant);
    free(files->model);
    *files = (struct sag_files){0};
}

attn_status files_source(const struct sag_files *files, enum model_part part,
                         struct model_source *source, char **folder, attn_error *err)
{
    *folder = NULL;
    if (asprintf(folder, "%s/%s", files->model, part_folders[part]) < 0) {
        *folder = NULL;
        return no_memory(files->model, err);
    }
    *source = (struct model_source){.folder = *folder,
                                    .variant = files->variant,
                                    .checkpoint = files->checkpoint,
                                    .part = part};
    return ATTN_OK;
}

int32_t files_have(const struct sag_files *files, const struct model_source *source)
{
    return files->checkpoint || access(source->folder, F_OK) == 0;
}

attn_status files_scheduler(const struct sag_files *files, const char *class_name,
                            const char *prediction_type, scheduler **out, attn_error *err)
{
    json_t *config = NULL;
    char *path = NULL;
    attn_status status;
    if (files->checkpoint) {
        path = strdup(files->model);
    } else if (asprintf(&path, "%s/scheduler/scheduler_config.json", files->model) < 0) {
        path = NULL;
    }
    if (!path) {
        return no_memory(files->model, err);
    }
    status = files->checkpoint ? checkpoint_config(files->checkpoint, PART_SCHEDULER, &config, err)
                               : scheduler_config_read(path, &config, err);
    if (!status && prediction_type &&
        json_object_set_new(config, "prediction_type", json_string(prediction_type))) {
        status = attn_fail(err, ATTN_INVALID, "prediction_type: not a text in UTF-8");
    }
    if (!status) {
        status = scheduler_open_config(config, path, class_name, out, err);
    }
    json_decref(config);
    free(path);
    return status;
}
