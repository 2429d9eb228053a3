/* alloc_count.c: counts what the process takes from the heap.  The program's own malloc stands
 * before libc's, for plugins too; glibc keeps its implementation under other names.  Not where a
 * sanitizer owns the allocator. */
#include "check.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)

int alloc_counting(void)
{
    return 0;
}

struct alloc_counts alloc_now(void)
{
    return (struct alloc_counts){0, 0};
}

#else

#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void __libc_free(void *);

static atomic_llong taken, live;

static void *count(void *p)
{
    atomic_fetch_add_explicit(&taken, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&live, p != NULL, memory_order_relaxed);
    return p;
}

void *malloc(size_t n)
{
    return count(__libc_malloc(n));
}

void *calloc(size_t n, size_t m)
{
    return count(__libc_calloc(n, m));
}

void *realloc(void *p, size_t n)
{
    void *q = __libc_realloc(p, n);
    atomic_fetch_add_explicit(&taken, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&live, (q && !p) - (p && !q && !n), memory_order_relaxed);
    return q;
}

void *memalign(size_t align, size_t n)
{
    return count(__libc_memalign(align, n));
}

void *aligned_alloc(size_t align, size_t n)
{
    return count(__libc_memalign(align, n));
}

int posix_memalign(void **p, size_t align, size_t n)
{
    void *q = count(__libc_memalign(align, n));
    if (!q)
        return ENOMEM;
    *p = q;
    return 0;
}

void free(void *p)
{
    if (p)
        atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
    __libc_free(p);
}

int alloc_counting(void)
{
    return 1;
}

struct alloc_counts alloc_now(void)
{
    return (struct alloc_counts){atomic_load(&taken), atomic_load(&live)};
}

#endif
