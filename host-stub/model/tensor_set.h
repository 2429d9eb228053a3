/* tensor_set.h: the tensors of one part of a model by name, whichever files hold them: one
 * safetensors file, several that an index file lists, or a checkpoint's, under diffusers' names.
 */
#ifndef ATTNPLUG_MODEL_TENSOR_SET_H
#define ATTNPLUG_MODEL_TENSOR_SET_H

#include "model_source.h"
#include "safetensors.h"

struct tensor_set;

/* Of a folder: <base>.<variant>.safetensors where a variant is named and there, else
 * <base>.safetensors, and where no variant is named and that is missing <base>.fp16.safetensors;
 * each also as <base>.safetensors.index.json with its shards.  ATTN_NOT_FOUND names what is
 * missing, ATTN_UNSUPPORTED a pickle that is there instead. */
attn_status tensor_set_open(const struct model_source *source, const char *base,
                            struct tensor_set **out, attn_error *err);
void tensor_set_close(struct tensor_set *set); /* NULL does nothing */

/* Whether a file of that variant lies in the folder, as diffusers v0.26.3 looks for it
 * (pipelines/pipeline_utils.py): by what stands after the first dot of its name. */
int32_t variant_is_there(const char *folder, const char *variant);

/* In the order of their names' bytes, each name once. */
size_t tensor_set_count(const struct tensor_set *set);
const safetensors_tensor *tensor_set_at(const struct tensor_set *set, size_t index);
/* 0 where there is none of that name. */
int32_t tensor_set_find(const struct tensor_set *set, const char *name, size_t *index);

/* For messages: the file of a tensor, and the set's own. */
const char *tensor_set_file(const struct tensor_set *set, size_t index);
const char *tensor_set_path(const struct tensor_set *set);

/* As safetensors_let_go. */
void tensor_set_let_go(const struct tensor_set *set, const void *data, uint64_t bytes);
/* Of all its tensors. */
void tensor_set_rest(const struct tensor_set *set);

#endif
