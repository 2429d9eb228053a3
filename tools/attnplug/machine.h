/* machine.h: what `attnplug --version` tells of this machine. */
#ifndef ATTNPLUG_TOOLS_MACHINE_H
#define ATTNPLUG_TOOLS_MACHINE_H

/* Lines "<part>  <what was found>" on stdout; what is absent is said, nothing fails. */
void machine_print(void);

#endif
