/* The compiled kernels as C functions. A launch returns a cudaError_t, or FLASH_NO_MAP where the
 * driver refused a tensor map (then another family must serve the call). */
#ifndef FLASH_LAUNCH_H
#define FLASH_LAUNCH_H

#include "flash_select.h"

#ifdef __cplusplus
extern "C" {
#endif

#define FLASH_NO_MAP (-1)

typedef struct flash_device {
    int sms;
    int smem; /* bytes that a block may have */
    int hopper;
    void *encode; /* cuTensorMapEncodeTiled, or NULL: no Hopper kernels for long sequences */
} flash_device;

typedef struct flash_entry {
    int (*ready)(void); /* once per device: shared-memory limits */
    int (*launch)(const flash_problem *p, const flash_device *device, void *stream);
} flash_entry;

extern const flash_entry flash_long_f16[FLASH_LONG_COUNT], flash_long_bf16[FLASH_LONG_COUNT];
extern const flash_entry flash_band_f16[FLASH_BAND_COUNT], flash_band_bf16[FLASH_BAND_COUNT];
extern const flash_entry flash_mass_f16[FLASH_MASS_COUNT], flash_mass_bf16[FLASH_MASS_COUNT];
extern const flash_entry flash_short_f16[FLASH_SHORT_SETS][FLASH_SHORT_COUNT],
    flash_short_bf16[FLASH_SHORT_SETS][FLASH_SHORT_COUNT];
extern const flash_entry flash_generic_f16[FLASH_GENERIC_COUNT],
    flash_generic_bf16[FLASH_GENERIC_COUNT];
extern const flash_entry flash_second_f16[FLASH_GENERIC_COUNT],
    flash_second_bf16[FLASH_GENERIC_COUNT];
extern const flash_entry flash_plain[FLASH_PLAIN_COUNT];
extern const flash_entry flash_split[FLASH_SPLIT_COUNT], flash_split_mass[FLASH_SPLIT_COUNT];

/* key_mass from the partial sums in p->scratch */
int flash_mass_mean(const flash_problem *p, int parts, int hopper, void *stream);
/* key_mass of no queries: zero */
int flash_zero_mass(const flash_problem *p, void *stream);

#ifdef __cplusplus
}
#endif

#endif
