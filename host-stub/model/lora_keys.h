/* lora_keys.h: the names of a LoRA file's tensors, in any of the forms that trainers write, taken
 * apart.
 *
 *   <layer>.processor.to_q_lora.down.weight          diffusers' attention processors, old
 *   unet.<module>.lora.down.weight                   diffusers, with the model's name before
 *   text_encoder.<module>.lora_linear_layer.down.weight
 *   unet.<module>.lora_A.weight                      PEFT
 *   lora_unet_<module>.lora_down.weight, .alpha      kohya: every dot of the module an underscore
 *
 * Kohya's form cannot be undone without guessing, so modules are compared folded: with each dot an
 * underscore.  No two modules of a UNet or a text encoder fold to the same.
 */
#ifndef ATTNPLUG_MODEL_LORA_KEYS_H
#define ATTNPLUG_MODEL_LORA_KEYS_H

#include <stddef.h>

enum lora_component { LORA_UNET, LORA_TEXT_ENCODER };
enum lora_part { LORA_DOWN, LORA_UP, LORA_ALPHA, LORA_OTHER };

struct lora_key {
    enum lora_component component;
    enum lora_part part;
    char *module; /* folded; owned */
};

/* 0, or -1 without memory.  A name in no known form has LORA_OTHER; its module is what stands
 * before the last word that a foreign method would add (".hada_w1_a", ".dora_scale"). */
int lora_key_parse(const char *name, struct lora_key *key);

/* The module of a model, folded in place as keys are.  Returns where the folded name begins. */
char *lora_fold(char *module);

/* What a file with such a key was made for, where that is told by the name: "Stable Diffusion XL";
 * NULL where the name fits 1.x and 2.x. */
const char *lora_key_family(const char *name);

#endif
