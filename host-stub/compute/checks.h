/* checks.h: what every device asks of its tensors and of a convolution's description. */
#ifndef ATTNPLUG_COMPUTE_CHECKS_H
#define ATTNPLUG_COMPUTE_CHECKS_H

#include "pass.h"

/* Checks that each is a float tensor; what names the operation. */
attn_status check_floats(attn_work *w, const char *what, uint32_t n, const attn_tensor *const *t);

/* Checks that weight and bias have the shapes that the numbers say, and kernel <= kernel_max. */
attn_status conv_desc_check(const struct conv_desc *d, int64_t kernel_max, attn_error *err);

#endif
