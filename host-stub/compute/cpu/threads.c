/* threads.c: the host's parallel_for: OpenMP's threads, the ones that oneDNN runs on, or the pool
 * of libattnplug in a build without OpenMP.
 */
#include "cpu.h"

#include <stdatomic.h>

#ifdef _OPENMP
#include <omp.h>

/* Ranges get shorter towards the end, so that a thread whose core was taken away for a while holds
 * nobody up; each is a multiple of the grain. */
static void serve(_Atomic int64_t *next, int64_t n, int64_t grain, int64_t threads,
                  void (*body)(void *arg, int64_t begin, int64_t end, uint32_t thread), void *arg,
                  uint32_t thread)
{
    int64_t begin = atomic_load_explicit(next, memory_order_relaxed);
    while (begin < n) {
        int64_t length = (n - begin) / (2 * threads) / grain * grain;
        if (length < grain)
            length = grain;
        int64_t end = n - begin < length ? n : begin + length;
        if (!atomic_compare_exchange_weak_explicit(next, &begin, end, memory_order_relaxed,
                                                   memory_order_relaxed))
            continue;
        body(arg, begin, end, thread);
        begin = atomic_load_explicit(next, memory_order_relaxed);
    }
}

static void
openmp_parallel_for(void *ctx, int64_t n, int64_t grain,
                    void (*body)(void *arg, int64_t begin, int64_t end, uint32_t thread), void *arg)
{
    const struct cpu *c = ctx;
    if (n <= 0)
        return;
    if (grain < 1)
        grain = 1;
    int64_t pieces = (n - 1) / grain + 1;
    int64_t threads = c->base.host.max_threads;
    threads = pieces < threads ? pieces : threads;
    /* Within a team all runs inline.  The team may be the engine's, and larger than ours: its
     * numbers are no slots. */
    if (omp_in_parallel() || threads == 1) {
        body(arg, 0, n, 0);
        return;
    }
    _Atomic int64_t next = 0;
#pragma omp parallel num_threads((int)threads)
    serve(&next, n, grain, threads, body, arg, (uint32_t)omp_get_thread_num());
}

attn_status threads_open(struct cpu *c, uint32_t n_threads, attn_error *err)
{
    (void)err;
    c->base.host.max_threads = n_threads ? n_threads : (uint32_t)omp_get_max_threads();
    c->base.host.parallel_for = openmp_parallel_for;
    c->base.host.ctx = c;
    return ATTN_OK;
}

void threads_close(struct cpu *c)
{
    (void)c;
}

#else

static void pool_parallel_for(void *ctx, int64_t n, int64_t grain,
                              void (*body)(void *arg, int64_t begin, int64_t end, uint32_t thread),
                              void *arg)
{
    const struct cpu *c = ctx;
    const attn_host *host = attn_pool_host(c->pool);
    host->parallel_for(host->ctx, n, grain, body, arg);
}

attn_status threads_open(struct cpu *c, uint32_t n_threads, attn_error *err)
{
    attn_status status = attn_pool_open(n_threads, &c->pool, err);
    if (status != ATTN_OK)
        return status;
    c->base.host.max_threads = attn_pool_host(c->pool)->max_threads;
    c->base.host.parallel_for = pool_parallel_for;
    c->base.host.ctx = c;
    return ATTN_OK;
}

void threads_close(struct cpu *c)
{
    attn_pool_close(c->pool);
}

#endif
