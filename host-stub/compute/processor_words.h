/* processor_words.h: a processor as people write it: NAME[+NAME][:param=value,...]. */
#ifndef ATTNPLUG_COMPUTE_PROCESSOR_WORDS_H
#define ATTNPLUG_COMPUTE_PROCESSOR_WORDS_H

#include "attn_layer.h"
#include "error.h"

/* spec points into it.  Names are not looked up here. */
struct processor_words {
    attn_layer_spec spec;
    char *text;         /* owned: names and values */
    attn_param *params; /* owned: spec.params */
};

/* "true" and "false" are whole numbers, "None" is as if the parameter were not there; what is no
 * number is a text.  INVALID names the word that does not fit.  Lists are name.0=, name.1=. */
attn_status processor_words_parse(const char *words, struct processor_words *out, attn_error *err);
/* The parameters alone, name=value,...: spec.processor stays NULL. */
attn_status processor_params_parse(const char *list, struct processor_words *out, attn_error *err);
void processor_words_clear(struct processor_words *words);

#endif
