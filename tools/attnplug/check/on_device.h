/* on_device.h: runs op cases on the CPU as they are, and on a GPU through mirrors of their buffers.
 */
#ifndef ATTNPLUG_CHECK_ON_DEVICE_H
#define ATTNPLUG_CHECK_ON_DEVICE_H

#include "check.h"
#include "op_case.h"

struct gpu;

/* What a check on a GPU holds; NULL in struct check means the CPU. */
attn_status device_open(const attn_device *device, struct gpu **gpu, attn_error *err);

/* Runs the plan on the case.  On a GPU: every buffer with its surroundings goes to device memory
 * that ends (or begins) at unmapped addresses, the plan runs on a stream of this thread, and
 * everything comes back, so that what looks at the case afterwards need not know.  A case with an
 * odd index is captured in a graph, which is launched, where the plugin's head says that it can be.
 */
attn_status case_execute(const struct check *k, attn_op_plan *plan, struct op_case *c,
                         attn_error *err);
/* The same, never captured; *taken gets the bytes of device memory that the run took, 0 on a CPU.
 */
attn_status case_execute_counted(const struct check *k, attn_op_plan *plan, struct op_case *c,
                                 size_t *taken, attn_error *err);
/* Device memory in nobody's use, 0 on a CPU. */
size_t device_free_bytes(const struct check *k);

#endif
