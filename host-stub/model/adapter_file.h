/* adapter_file.h: files of adapters: opened if they are what they should be, else refused with a
 * sentence that helps. */
#ifndef ATTNPLUG_MODEL_ADAPTER_FILE_H
#define ATTNPLUG_MODEL_ADAPTER_FILE_H

#include "safetensors.h"

/* Opens path, or path/<in_folder> where path is a folder.  Pickles are
 * refused as pickle.h says, also one that stands in the folder in the file's place. */
attn_status adapter_open(const char *path, const char *in_folder, safetensors **out,
                         attn_error *err);

/* The models whose prompt embeddings have so many numbers a token: "Stable Diffusion 1.x"; NULL
 * where none is known. */
const char *family_of_width(int64_t width);
/* ATTN_UNSUPPORTED: the adapter in `path` was made for prompt embeddings `theirs` wide, the model
 * has `ours`. */
attn_status family_refuse(const char *path, int64_t theirs, int64_t ours, attn_error *err);

#endif
