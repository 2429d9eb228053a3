/* fma_peak.h: how many multiply-adds in registers this machine does, by vector width. */
#ifndef ATTNPLUG_BENCH_FMA_PEAK_H
#define ATTNPLUG_BENCH_FMA_PEAK_H

#include "attn_abi.h"

struct fma_peak {
    const char *name; /* "c" (4 lanes), "avx2" (8), "avx512" (16) */
    double gflops;    /* fp32, two operations each, best of `tries` runs; 0: not on this machine */
};
enum { FMA_PEAKS = 3 };

/* On all slots of host->parallel_for; about 10 ms a try.  Returns the largest. */
double fma_peaks(const attn_host *host, int tries, struct fma_peak peaks[FMA_PEAKS]);

#endif
