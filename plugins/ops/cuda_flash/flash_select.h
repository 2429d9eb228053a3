/* Which kernels serve a call, decided from shapes, strides and alignment alone. Plain C, needs no
 * GPU. */
#ifndef FLASH_SELECT_H
#define FLASH_SELECT_H

#include "flash_kernel.h"

/* bytes that a block may have: on 8.6 and 8.9, the least of all, and on 9.0 */
enum { FLASH_LEAST_SMEM = 99 * 1024, FLASH_HOPPER_SMEM = 227 * 1024 };

/* The compiled head dimensions of the Hopper kernels and of the fp32 ones (those of
 * FLASH_LONG_DIMS); a call takes the smallest that holds its own. */
#define FLASH_LONG_DIMS                                                                            \
    {                                                                                              \
        40, 64, 80, 128, 160, 256, 512                                                             \
    }
#define FLASH_SHORT_DIMS                                                                           \
    {                                                                                              \
        40, 64, 80, 128, 160                                                                       \
    }
enum {
    FLASH_LONG_COUNT = 7,
    FLASH_BAND_COUNT = 5, /* sizes of FLASH_SHORT_DIMS */
    FLASH_SHORT_COUNT = 5,
    FLASH_MASS_COUNT = 5,
    FLASH_SPLIT_COUNT = 7,
    FLASH_PLAIN_COUNT = 9 /* 16, 32, 64 queries a block, each with values up to 64, 128, 192 wide */
};

/* Up to 64 keys, 80, 128 and 256; with column sums up to 64 and 256. */
enum {
    FLASH_SHORT_64,
    FLASH_SHORT_80,
    FLASH_SHORT_128,
    FLASH_SHORT_256,
    FLASH_SHORT_MASS_64,
    FLASH_SHORT_MASS_256,
    FLASH_SHORT_SETS
};

/* head dimensions up to 64, 128, 256, 512 */
enum { FLASH_GENERIC_COUNT = 4 };

/* FLASH_BAND: FLASH_LONG where queries see a band of the keys. FLASH_SPLIT: fp32. FLASH_GENERIC:
 * fp16 and bf16 where no kernel of Hopper's own serves. FLASH_PLAIN: fp32 key_mass of few keys. */
typedef enum flash_family {
    FLASH_NOTHING,
    FLASH_LONG,
    FLASH_BAND,
    FLASH_SHORT,
    FLASH_GENERIC,
    FLASH_SPLIT,
    FLASH_PLAIN
} flash_family;

typedef struct flash_choice {
    flash_family family;
    int index; /* which compiled head dimension */
    int set;   /* FLASH_SHORT: which key count */
    int mass;  /* second pass of FLASH_LONG and FLASH_SPLIT: its compiled head dimension, or -1: the
                  generic one */
    int second_pass; /* probabilities or column sums come from a pass over Q K^T with the
                        log-sum-exp */
    int clustered;   /* FLASH_SHORT with column sums: a cluster of blocks takes the mean over heads,
                        no scratch */
    int mass_parts;  /* partial column sums a head, 0: none wanted, or none left to add */
    uint64_t lse_bytes, mass_bytes; /* scratch: own log-sum-exp (fp32: shifts and sums, which
                                       round less), then partial sums, */
    uint64_t staged_bytes;          /* then fp32's operands in parts */
} flash_choice;

#ifdef __cplusplus
extern "C" {
#endif

/* `hopper`: compute capability 9.0. `aligned`: rows of q, k, v and out start at 16-byte boundaries.
 */
flash_choice flash_select(const flash_problem *p, int hopper, int aligned);

/* Are the strides of q, k, v and out such that aligned data makes every row aligned? */
int flash_rows_whole(const flash_problem *p);

/* The larger of both ways' scratch, since data may turn out unaligned at run. */
uint64_t flash_scratch(const flash_problem *p, int hopper);

/* For head dimension 64 the long kernel has tiles of 128 and of 192 query rows. Are the tall ones
 * faster on `sms` multiprocessors, because they come to fewer waves? */
int flash_tall(const flash_problem *p, int sms);

/* 129 to 256 keys, D over 64: may two multiprocessors of `sms` share each tile of 64 queries,
 * because half of them would idle otherwise? */
int flash_pair(const flash_problem *p, int sms);

#ifdef __cplusplus
}
#endif

#endif
