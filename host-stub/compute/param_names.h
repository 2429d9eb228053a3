/* param_names.h: names of parameters against the lists that plugins give ("attn.params/1"). */
#ifndef ATTNPLUG_COMPUTE_PARAM_NAMES_H
#define ATTNPLUG_COMPUTE_PARAM_NAMES_H

#include "attn_abi.h"
#include "error.h"

#include <stdbool.h>

/* '*' in a pattern stands for a run of characters. */
bool param_name_fits(const char *pattern, const char *name);
/* Is the name in the list? */
bool param_name_known(const attn_param_list *list, const char *name);
/* INVALID names the nearest of the list; a name of NULL is INVALID. */
attn_status param_name_check(const attn_param_list *list, const char *name, const char *who,
                             attn_error *err);

#endif
