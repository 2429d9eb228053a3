/* surroundings.h: what a plugin must leave as it was: threads, files, floating-point mode, locale,
 * signals. */
#ifndef ATTNPLUG_CHECK_SURROUNDINGS_H
#define ATTNPLUG_CHECK_SURROUNDINGS_H

#include "check.h"

#include <signal.h>

struct surroundings {
    int threads, files, rounding;
    unsigned mode; /* the word that controls floating-point arithmetic, 0 where it is not known */
    char locale[64];
    struct sigaction signals[32];
};

void surroundings_look(struct surroundings *s);
/* A finding for each difference. */
void surroundings_compare(const struct surroundings *before, const struct surroundings *after,
                          struct result *r);

#endif
