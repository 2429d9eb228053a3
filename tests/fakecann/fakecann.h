/* fakecann.h: what tests may ask of the stand-in for CANN, and tell it to do.
 *
 * The stand-in is libraries under CANN's own names which keep CANN's documented protocol and break
 * every use that does not. They compute on the host, in double. This header is libfakecann.so, on
 * which they stand.
 *
 * Environment:
 *   FAKECANN_FAIL=function:nth:code[,...]  the nth call (from 1) of a function fails with the code
 *   FAKECANN_DEVICES=n                     devices that there are (default 2)
 *   FAKECANN_STRICT=1                      a row that sees no key, without inner precise 2, fails
 *                                          as an AI core exception instead of giving a mean
 *   FAKECANN_REPORT=file                   counts, leaks and violations, written at exit
 */
#ifndef FAKECANN_H
#define FAKECANN_H

#include <stdint.h>

#define FAKECANN_API __attribute__((visibility("default")))

/* Calls of a function so far; of all of them for NULL. */
FAKECANN_API uint64_t fakecann_calls(const char *function);
/* The nth call from now fails; as in FAKECANN_FAIL, which it adds to. */
FAKECANN_API void fakecann_fail(const char *function, uint64_t nth, int32_t code);
/* From now on any call may fail, one in `one_in`, with a code that its function documents.
 * one_in 0 stops it. Functions that release never fail so. */
FAKECANN_API void fakecann_fail_randomly(uint32_t seed, uint32_t one_in);
/* Failures that were injected so far. */
FAKECANN_API uint64_t fakecann_failed(void);
FAKECANN_API void fakecann_strict(int on);
/* What is found out in tiling is told in phase two, as some releases do, and not in phase one. */
FAKECANN_API void fakecann_tell_late(int on);

/* What is alive: memory, descriptors, executors, streams, uses of devices, uses of aclInit. */
typedef struct {
    uint64_t allocations, bytes, tensors, scalars, executors, streams, devices, inits;
} fakecann_live_counts;
FAKECANN_API fakecann_live_counts fakecann_live(void);

/* Misuse that real CANN would answer with a crash or wrong numbers: use of freed memory, of an
 * executor twice, reading what is not computed yet. */
FAKECANN_API uint64_t fakecann_violations(void);
/* The latest, "" if none. */
FAKECANN_API const char *fakecann_violation(void);
FAKECANN_API void fakecann_forget_violations(void);

#endif
