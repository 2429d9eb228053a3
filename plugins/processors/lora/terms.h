/* terms.h: what lora.so answers query with, beside its list of parameters. */
#ifndef ATTN_LORA_TERMS_H
#define ATTN_LORA_TERMS_H

#include "attn_terms.h"

/* The interface of that id, or NULL. */
const void *terms_query(const char *id);

#endif
