/* pool.c: a pthread pool with the parallel_for of attn_host.
 *
 * A job lives on its caller's stack; the caller works on it too, as slot 0, and leaves when no
 * worker is inside any more.  Jobs of several callers stand in one list and workers help the first
 * that has ranges and slots left, so concurrent callers never wait for each other.
 */
#include "attn_host.h"
#include "error.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define RANGES_PER_SLOT 4    /* of unequal work: enough to even out, few enough to be cheap */
#define SPINS           4000 /* some microseconds: shorter than a sleep and a wake-up */

enum { MOST_THREADS = 4096 };

typedef void body_function(void *arg, int64_t begin, int64_t end, uint32_t thread);

typedef struct job {
    struct job *next;
    body_function *body;
    void *arg;
    int64_t n;
    int64_t step;           /* length of a range: a multiple of the caller's grain */
    _Atomic int64_t begin;  /* of the next range that nobody took */
    _Atomic uint32_t slots; /* handed out */
    _Atomic uint32_t
        inside; /* workers that may still touch the job; changed under the pool's lock */
} job;

struct attn_pool {
    attn_host host;
    uint32_t n_workers;
    bool stop;
    pthread_mutex_t lock;
    pthread_cond_t work;    /* a job came, or stop */
    pthread_cond_t drained; /* some job's `inside` fell to 0 */
    job *jobs;
    _Atomic uint32_t arrivals; /* jobs so far: what a spinning worker watches */
    pthread_t workers[];
};

static _Thread_local bool inside_body;

static void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void job_work(job *j, uint32_t slot)
{
    bool outer = inside_body;
    inside_body = true;
    for (;;) {
        int64_t begin = atomic_fetch_add_explicit(&j->begin, j->step, memory_order_relaxed);
        if (begin >= j->n) {
            break;
        }
        int64_t end = j->n - begin < j->step ? j->n : begin + j->step;
        j->body(j->arg, begin, end, slot);
    }
    inside_body = outer;
}

/* Under the lock. */
static job *pool_find(const attn_pool *pool)
{
    for (job *j = pool->jobs; j; j = j->next) {
        if (atomic_load(&j->begin) < j->n && atomic_load(&j->slots) < pool->host.max_threads) {
            return j;
        }
    }
    return NULL;
}

static void pool_spin(attn_pool *pool)
{
    uint32_t seen = atomic_load(&pool->arrivals);
    for (int i = 0; i < SPINS && atomic_load(&pool->arrivals) == seen; i++) {
        cpu_relax();
    }
}

static void *worker_main(void *arg)
{
    attn_pool *pool = arg;
    pthread_mutex_lock(&pool->lock);
    while (!pool->stop) {
        job *j = pool_find(pool);
        if (!j) {
            pthread_cond_wait(&pool->work, &pool->lock);
            continue;
        }
        uint32_t slot = atomic_fetch_add(&j->slots, 1);
        atomic_fetch_add(&j->inside, 1);
        pthread_mutex_unlock(&pool->lock);
        job_work(j, slot);
        pthread_mutex_lock(&pool->lock);
        if (atomic_fetch_sub(&j->inside, 1) == 1) {
            pthread_cond_broadcast(&pool->drained);
        }
        pthread_mutex_unlock(&pool->lock);
        pool_spin(pool);
        pthread_mutex_lock(&pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static void pool_unlink(attn_pool *pool, job *j)
{
    for (job **link = &pool->jobs; *link; link = &(*link)->next) {
        if (*link == j) {
            *link = j->next;
            return;
        }
    }
}

static void pool_run(attn_pool *pool, job *j)
{
    pthread_mutex_lock(&pool->lock);
    j->next = pool->jobs;
    pool->jobs = j;
    atomic_fetch_add(&pool->arrivals, 1);
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);

    job_work(j, 0);

    for (int i = 0; i < SPINS && atomic_load(&j->inside); i++) {
        cpu_relax();
    }
    pthread_mutex_lock(&pool->lock);
    pool_unlink(pool, j);
    while (atomic_load(&j->inside)) {
        pthread_cond_wait(&pool->drained, &pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
}

static void pool_parallel_for(void *ctx, int64_t n, int64_t grain, body_function *body, void *arg)
{
    attn_pool *pool = ctx;
    if (n <= 0) {
        return;
    }
    if (grain < 1) {
        grain = 1;
    }
    if (inside_body || !pool->n_workers || n <= grain) {
        body(arg, 0, n, 0);
        return;
    }
    int64_t ranges = (n - 1) / grain + 1;
    int64_t wanted = (int64_t)pool->host.max_threads * RANGES_PER_SLOT;
    job j = {.body = body, .arg = arg, .n = n};
    j.step = ((ranges - 1) / wanted + 1) * grain;
    atomic_store(&j.slots, 1);
    pool_run(pool, &j);
}

static uint32_t cores_allowed(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) {
        return (uint32_t)CPU_COUNT(&set);
    }
    return 1;
}

static void pool_join(attn_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    pool->stop = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (uint32_t i = 0; i < pool->n_workers; i++) {
        pthread_join(pool->workers[i], NULL);
    }
}

attn_status attn_pool_open(uint32_t n_threads, attn_pool **out, attn_error *err)
{
    uint32_t n = n_threads ? n_threads : cores_allowed();
    if (n > MOST_THREADS) {
        return attn_fail(err, ATTN_INVALID, "n_threads is %u, expected at most %d", n,
                         MOST_THREADS);
    }
    attn_pool *pool = calloc(1, sizeof *pool + n * sizeof pool->workers[0]);
    if (!pool) {
        return attn_fail(err, ATTN_NOMEM, "no memory for a pool of %u threads", n);
    }
    pool->host = (attn_host){.size = sizeof(attn_host),
                             .max_threads = n,
                             .ctx = pool,
                             .parallel_for = pool_parallel_for};
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->drained, NULL);
    for (; pool->n_workers + 1 < n; pool->n_workers++) {
        int rc = pthread_create(&pool->workers[pool->n_workers], NULL, worker_main, pool);
        if (rc) {
            attn_status status = attn_fail(err, ATTN_NOMEM, "thread %u of %u: %s",
                                           pool->n_workers + 1, n, strerror(rc));
            attn_pool_close(pool);
            return status;
        }
    }
    *out = pool;
    return ATTN_OK;
}

void attn_pool_close(attn_pool *pool)
{
    if (!pool) {
        return;
    }
    pool_join(pool);
    pthread_cond_destroy(&pool->drained);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

const attn_host *attn_pool_host(attn_pool *pool)
{
    return &pool->host;
}
