/* adapted.h: what the tests of adapters share: a stored call of a UNet, run and compared; adapter
 * files with other names. */
#ifndef ATTNPLUG_TESTS_MODEL_ADAPTED_H
#define ATTNPLUG_TESTS_MODEL_ADAPTED_H

#include "machine.h"
#include "unet.h"

/* The relative L2 between what `u` makes of the call in unet_<model> and tensor `name` of
 * adapters_<model>, its LoRAs at `scale` (set NULL: none). */
double unet_error(struct machine *m, struct unet *u, const char *model, const char *name,
                  const struct lora_set *set, double scale);

/* Opens a model's UNet; fails the test with the text where that fails. */
struct unet *unet_load(struct machine *m, const char *model, const struct unet_processors *p);
/* Expects unet_open to fail with a text that has `named`. */
void unet_refused(struct machine *m, const char *model, const struct unet_processors *p,
                  attn_status status, const char *named);

/* tests/golden/<name>.safetensors */
const char *golden_path(char path[512], const char *name);

/* A new file of `n` tensors at a place of its own, for the caller to remove with file_remove. */
char *file_write(const safetensors_tensor *tensors, size_t n);
char *file_of_bytes(const void *bytes, size_t n, const char *ending);
void file_remove(char *path);

#endif
