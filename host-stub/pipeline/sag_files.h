/* sag_files.h: where a pipeline's parts are read from: a folder in diffusers' format, or a
 * checkpoint with original names. */
#ifndef ATTNPLUG_PIPELINE_SAG_FILES_H
#define ATTNPLUG_PIPELINE_SAG_FILES_H

#include "attn_sag.h"
#include "checkpoint.h"
#include "scheduler.h"

struct sag_files {
    char *model;                   /* the folder or the file */
    char *variant;                 /* NULL: none named */
    struct checkpoint *checkpoint; /* NULL: a folder */
};

/* Checks that the model is there and of a kind that is read; opens a checkpoint.  files_close
 * undoes it, after a failure too. */
attn_status files_open(struct sag_files *files, const attn_sag_open_options *o, attn_error *err);
void files_close(struct sag_files *files);

/* One part. *folder is what source points into, for the caller to free. */
attn_status files_source(const struct sag_files *files, enum model_part part,
                         struct model_source *source, char **folder, attn_error *err);
/* Whether the model has that part: the text encoder may be absent. */
int32_t files_have(const struct sag_files *files, const struct model_source *source);

/* The model's scheduler; class_name and prediction_type NULL: its own. */
attn_status files_scheduler(const struct sag_files *files, const char *class_name,
                            const char *prediction_type, scheduler **out, attn_error *err);

#endif
