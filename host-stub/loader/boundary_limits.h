/* boundary_limits.h: what no honest plugin asks for. */
#ifndef ATTNPLUG_LOADER_BOUNDARY_LIMITS_H
#define ATTNPLUG_LOADER_BOUNDARY_LIMITS_H

/* More scratch than any machine has: a size that was never computed. */
#define BOUNDARY_MAX_SCRATCH (UINT64_C(1) << 42)

#endif
