#ifndef ATTNPLUG_PIPELINE_TOKENIZER_PRIVATE_H
#define ATTNPLUG_PIPELINE_TOKENIZER_PRIVATE_H

#include "bpe.h"
#include "tokenizer.h"

/* A token that is cut out of the text before anything else happens to it. */
typedef struct {
    char *content;
    size_t bytes;
    int32_t id;
    int32_t more; /* ids after it that follow wherever it stands */
    int single_word;
} added_token;

struct tokenizer {
    bpe *bpe;
    added_token *added;
    size_t added_count;
    size_t max_length;
    int32_t start, end, unknown, pad, highest;
};

/* Reads the folder's settings into `t`, whose bpe is there. */
attn_status tokenizer_configure(tokenizer *t, const char *folder, attn_error *err);

/* CLIP's own settings, with that pad token. */
attn_status tokenizer_configure_clip(tokenizer *t, const char *pad, attn_error *err);

/* The added token of that content, NULL where there is none. */
const added_token *added_find(const tokenizer *t, const char *content);

/* Appends the ids of all of `text`, without the start and end tokens. */
attn_status tokenizer_ids(const tokenizer *t, const char *text, id_list *ids, attn_error *err);

/* "folder/name", for the caller to free; NULL when memory ran out. */
char *folder_path(const char *folder, const char *name);

#endif
