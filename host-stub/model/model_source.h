/* model_source.h: where one part of a model (its UNet, autoencoder or text encoder) is read from: a
 * folder in diffusers' format, or a checkpoint, one file that holds all of them under their
 * original names.
 */
#ifndef ATTNPLUG_MODEL_MODEL_SOURCE_H
#define ATTNPLUG_MODEL_MODEL_SOURCE_H

#include <stddef.h>
#include <stdint.h>

struct checkpoint;

enum model_part { PART_UNET, PART_VAE, PART_TEXT, PART_SCHEDULER };

struct model_source {
    const char *folder;  /* the part's own; read where there is no checkpoint */
    const char *variant; /* "fp16": <base>.fp16.safetensors is taken where it is there; or NULL */
    const struct checkpoint *checkpoint; /* outlives what is read from it */
    enum model_part part;                /* of the checkpoint */
    const char *file; /* one .safetensors file, its names as they are, in place of all above */
};

#endif
