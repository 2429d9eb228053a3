#ifndef ATTNPLUG_TESTS_COMPUTE_PEAK_H
#define ATTNPLUG_TESTS_COMPUTE_PEAK_H

double peak_flops(long rounds);
float peak_run(long rounds);

#endif
