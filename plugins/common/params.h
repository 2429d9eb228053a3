/* params.h: reading a plugin's parameters.  Bind is strict: a name that the plugin does not know, a
 * value of the wrong kind or a name given twice is an error, which names the nearest that there is,
 * or all where none is near.
 */
#ifndef ATTN_COMMON_PARAMS_H
#define ATTN_COMMON_PARAMS_H

#include "attn_abi.h"

/* Every parameter against the list, whose names may hold '*' for a run of characters.  `who` opens
 * the text ("standard: layer mid_block..."). */
attn_status params_check(const attn_param_list *known, const attn_param *params, uint32_t n,
                         const char *who, attn_error *err);

/* The name alone. */
attn_status params_check_name(const attn_param_list *known, const char *name, const char *who,
                              attn_error *err);

/* The parameter of that name, or NULL. */
const attn_param *params_find(const attn_param *params, uint32_t n, const char *name);

/* A number within [low, high]; *value stays where the name was not given.  An integer serves as a
 * float; a float never as an integer.  NaN is an error. */
attn_status params_int(const attn_param *params, uint32_t n, const char *name, int64_t low,
                       int64_t high, int64_t *value, const char *who, attn_error *err);
attn_status params_float(const attn_param *params, uint32_t n, const char *name, double *value,
                         const char *who, attn_error *err);

/* 1 where `name` fits `pattern`, in which one '*' stands for a run of characters. */
int params_match(const char *pattern, const char *name);

#endif
