/* Python's str.lower, which is Unicode's full lower-casing without a locale. */
#ifndef ATTNPLUG_PIPELINE_CLIP_LOWER_H
#define ATTNPLUG_PIPELINE_CLIP_LOWER_H

#include <stddef.h>
#include <stdint.h>

/* Lower-cases `n` code points of one string into `out`, which holds 2 n. Returns how many it wrote.
 * Two rules go beyond single characters: U+0130 becomes two code points, and a capital sigma at the
 * end of a word becomes a final one (Unicode, section 3.13, Final_Sigma). */
size_t clip_lower(const int32_t *in, size_t n, int32_t *out);

#endif
