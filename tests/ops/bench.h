/* bench.h: verified timings of the CPU's ops. */
#ifndef TESTS_OPS_BENCH_H
#define TESTS_OPS_BENCH_H

int bench_main(int argc, char **argv);

#endif
