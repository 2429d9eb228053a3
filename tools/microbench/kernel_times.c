/* kernel_times.c: what each kernel of a program takes on the GPU, in graphs too, without changing
 * the program.  Reads CUPTI's activity records; loaded by the driver:
 *
 *   gcc -shared -fPIC -O2 -I$CUDA/include kernel_times.c -o kernel_times.so -L$CUDA/lib64 -lcupti
 *   CUDA_INJECTION64_PATH=$PWD/kernel_times.so KERNEL_TIMES=times.csv program
 *
 * times.csv: one line for each kernel launch in order: start and length in microseconds, name. */
#include <cupti.h>

#include <stdio.h>
#include <stdlib.h>

static FILE *out;
static uint64_t first;

static void CUPTIAPI buffer_give(uint8_t **buffer, size_t *size, size_t *records)
{
    *size = (size_t)8 << 20;
    *buffer = aligned_alloc(8, *size);
    *records = 0;
}

static void CUPTIAPI buffer_take(CUcontext context, uint32_t stream, uint8_t *buffer, size_t size,
                                 size_t valid)
{
    CUpti_Activity *record = NULL;
    (void)context;
    (void)stream;
    (void)size;
    while (out && cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) {
        if (record->kind != CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL)
            continue;
        const CUpti_ActivityKernel9 *k = (const CUpti_ActivityKernel9 *)record;
        first = first ? first : k->start;
        (void)fprintf(out, "%.3f,%.3f,\"%s\"\n", (double)(k->start - first) * 1e-3,
                      (double)(k->end - k->start) * 1e-3, k->name);
    }
    free(buffer);
}

static void finish(void)
{
    (void)cuptiActivityFlushAll(1);
    if (out)
        (void)fclose(out);
    out = NULL;
}

__attribute__((visibility("default"))) int InitializeInjection(void)
{
    const char *path = getenv("KERNEL_TIMES");
    out = path ? fopen(path, "w") : NULL;
    if (!out || cuptiActivityRegisterCallbacks(buffer_give, buffer_take) != CUPTI_SUCCESS ||
        cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) != CUPTI_SUCCESS)
        return 0;
    (void)atexit(finish);
    return 1;
}
