/* machine.h: what the tests of models share: the plugins that were built, a CPU to compute on, and
 * stored values of the real diffusers to compare with. */
#ifndef ATTNPLUG_TESTS_MODEL_MACHINE_H
#define ATTNPLUG_TESTS_MODEL_MACHINE_H

#include "compute.h"
#include "safetensors.h"
#include "unet.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* Models whose values are stored: those in tests/golden/models, and the built-in one. */
extern const char *const model_names[];
extern const size_t n_models;

struct machine {
    attn_registry *registry;
    struct compute *compute;
    char log[4096]; /* what was said since the last log_clear */
};

/* cmocka's group setup and teardown; *state is a struct machine. */
int machine_open(void **state);
int machine_close(void **state);

/* folder of a part of a model: "unet", "vae", "text_encoder". */
void model_folder(char folder[512], const char *model, const char *part);

/* tests/golden/<kind>_<model>.safetensors */
safetensors *golden_open(const char *kind, const char *model);
const safetensors_tensor *golden_find(const safetensors *file, const char *name);

/* An fp32 golden [B, C, h, w] as new contiguous [B, h, w, C]; the caller frees `data`. */
attn_tensor golden_picture(const safetensors *file, const char *name);
/* A contiguous fp32 tensor of NaNs; the caller frees `data`. */
attn_tensor poisoned(uint32_t rank, const int64_t *shape);
/* Fills the arena that `w` runs in with NaN. */
void poison_arena(attn_work *w);
/* A dry run and a real one in a poisoned arena; fails the test with the text of either. */
void unet_run(struct machine *m, struct unet *u, const struct unet_call *call);

/* |a - b| / |b|, in double. */
double relative_l2(const float *a, const float *b, int64_t n);
int64_t count_of(const attn_tensor *t);

#endif
