/* lora_set.h: the LoRA files of a pipeline: which module of which model each tensor belongs to.
 *
 * A model that is built takes what fits its modules (weights_adapt); what nobody took is told at
 * the end.  Slot i of low-rank terms is file i.
 */
#ifndef ATTNPLUG_MODEL_LORA_SET_H
#define ATTNPLUG_MODEL_LORA_SET_H

#include "lora_keys.h"
#include "safetensors.h"

enum { LORA_MOST_FILES = 64 }; /* COMPOSITION_SLOTS: scales that a layer can tell apart */

struct lora_choice {
    const char *file; /* or a folder that has pytorch_lora_weights.safetensors */
    double scale;     /* of its terms in the UNet */
    double text_scale;
};

struct lora_set;

/* Reads the names and checks that they come in pairs.  The files stay mapped until close. */
attn_status lora_set_open(const struct lora_choice *choices, uint32_t n, struct lora_set **out,
                          attn_error *err);
void lora_set_close(struct lora_set *set); /* NULL does nothing */
uint32_t lora_set_count(const struct lora_set *set);
const char *lora_set_path(const struct lora_set *set, uint32_t file);

/* down [rank, in] or [rank, in, k, k] and up [out, rank] or [out, rank, 1, 1]; factor: alpha /
 * rank, or 1. */
struct lora_pair {
    const safetensors_tensor *down, *up;
    float factor;
};

/* What file has for a module, by diffusers' or transformers' name; marks it as taken.  0 where it
 * has nothing. */
int lora_set_take(struct lora_set *set, uint32_t file, enum lora_component component,
                  const char *module, struct lora_pair *pair);

/* Refuses files for models of another family by name: width is that of the model's prompt
 * embeddings. */
attn_status lora_set_family(const struct lora_set *set, int64_t width, attn_error *err);
/* INVALID, with their names, where tensors of a file fit nothing.  LORA_IGNORE: they are told to
 * `log` instead; LORA_TEXT_ALONE: no UNet was built, so its tensors are passed over. */
enum { LORA_IGNORE = 1, LORA_TEXT_ALONE = 2 };
attn_status lora_set_done(const struct lora_set *set, uint32_t flags,
                          void (*log)(void *ctx, int32_t level, const char *text), void *log_ctx,
                          attn_error *err);
/* One scale for each file, times `scale`. */
void lora_set_scales(const struct lora_set *set, enum lora_component component, double scale,
                     float scales[LORA_MOST_FILES]);

#endif
