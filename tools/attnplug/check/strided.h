/* strided.h: tensors of any strides in guarded memory. */
#ifndef ATTNPLUG_CHECK_STRIDED_H
#define ATTNPLUG_CHECK_STRIDED_H

#include "guard.h"
#include "random.h"

/* Makes one or more axes run backwards in memory; what is promised of element 0's address becomes
 * what then holds. */
void strided_reverse(struct random *r, attn_tensor *t);
/* An axis with more than one element runs backwards. */
int strided_is_reversed(const attn_tensor *t);

/* Memory for t, unreadable behind its end or `before` its beginning; t->data becomes the address of
 * element 0, never better aligned than an element or than was promised.  0, or -1 for no memory. */
int strided_open(attn_tensor *t, struct guard *g, int before);

/* Which bytes of that memory are elements': NULL where all are, else the caller's to free.  0, or
 * -1 for no memory. */
int strided_mark(const attn_tensor *t, const struct guard *g, unsigned char **elements);
/* What lies between elements is still the poison. */
int strided_gaps_intact(const struct guard *g, const unsigned char *elements, unsigned char poison);

#endif
