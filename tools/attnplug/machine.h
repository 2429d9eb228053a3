/* machine.h: what there is on this machine. */
#ifndef ATTNPLUG_TOOLS_MACHINE_H
#define ATTNPLUG_TOOLS_MACHINE_H

#include <stddef.h>

/* The processor's name, for people. */
void machine_cpu_name(char *name, size_t capacity);
/* For `attnplug --version`. Lines "<part>  <what was found>" on stdout; what is absent is said,
 * nothing fails. */
void machine_print(void);

#endif
