/* broken.h: copies of a stored model with something else in them, or something wrong. */
#ifndef ATTNPLUG_TESTS_MODEL_BROKEN_H
#define ATTNPLUG_TESTS_MODEL_BROKEN_H

#include "machine.h"

/* A new folder with the config and the tensors of a part of a model. */
struct broken {
    char folder[256];
    char file[320]; /* its safetensors */
};

struct broken broken_copy(const char *model, const char *part);
void broken_remove(struct broken *b);

/* Sets a key of config.json to a value given as JSON; NULL removes it. */
void broken_set(const struct broken *b, const char *key, const char *json);
/* Writes config.json anew. */
void broken_write_config(const struct broken *b, const char *text);

enum change { CHANGE_DROP, CHANGE_SHAPE, CHANGE_DTYPE, CHANGE_NAME };
/* Writes the tensors anew, one of them changed: left out, of one element more in its last
 * dimension, of 64-bit integers, or called `name`.old. */
void broken_tensor(const struct broken *b, const char *name, enum change change);

/* Every tensor whose name has `from` in it gets `to` in its place. */
void broken_rename(const struct broken *b, const char *from, const char *to);
/* A 3x3 convolution's weight as a 5x5 one with a border of zeros. */
void broken_widen(const struct broken *b, const char *name);
/* The same tensors, one byte further on in the file. */
void broken_misalign(const struct broken *b);

#endif
