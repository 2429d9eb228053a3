/* broken.h: copies of a stored model with something wrong in them. */
#ifndef ATTNPLUG_TESTS_MODEL_BROKEN_H
#define ATTNPLUG_TESTS_MODEL_BROKEN_H

#include "machine.h"

/* A new folder with the config and the tensors of a part of "tiny-sd1". */
struct broken {
    char folder[256];
    char file[320]; /* its safetensors */
};

struct broken broken_copy(const char *part);
void broken_remove(struct broken *b);

/* Sets a key of config.json to a value given as JSON; NULL removes it. */
void broken_set(const struct broken *b, const char *key, const char *json);
/* Writes config.json anew. */
void broken_write_config(const struct broken *b, const char *text);

enum change { CHANGE_DROP, CHANGE_SHAPE, CHANGE_DTYPE, CHANGE_NAME };
/* Writes the tensors anew, one of them changed: left out, of one element more in its last
 * dimension, of 64-bit integers, or called `name`.old. */
void broken_tensor(const struct broken *b, const char *name, enum change change);

#endif
