/* check.h: is this plugin fit to ship?  Tests of one file, each in a child process.
 *
 * static.c   what the file says: symbols, imports, glibc's version, head
 * op_*.c     an op: what it takes, lifecycle, numbers, edges, replay, threads, leaks, broken calls
 * on_device.c  an op's case on a GPU
 * layer_*.c  a processor: the same over layers with every flag, on fake_*.c's strict compute
 * guard.c, strided.c  memory between unreadable pages, and tensors in it
 * child.c    runs a test where it can do no harm
 * report.c   what came out, for people and for programs
 */
#ifndef ATTNPLUG_CHECK_CHECK_H
#define ATTNPLUG_CHECK_CHECK_H

#include "attn_router.h"

#include <stdint.h>

struct check_options {
    const char *path;
    const char *only;   /* a test's name, or NULL for all */
    int64_t case_index; /* one case of it, or -1 for all */
    uint64_t seed;
    int64_t cases; /* random calls a test; 0: as the depth says */
    int quick;
    int json;
    const char *device_text; /* as it was given */
    attn_device device;
};

enum { CHECK_FAILING = 256, CHECK_FEATURES = 20 };

/* NONE: nothing of the test ran, since the plugin took none of its calls. */
enum verdict { VERDICT_PASS, VERDICT_FAIL, VERDICT_SKIP, VERDICT_NONE };

/* What a test leaves; in memory shared with the child, so that a crash tells which case it was in.
 */
struct result {
    char name[32];
    enum verdict verdict;
    int64_t cases;                   /* calls made */
    int64_t taken;                   /* of them supported */
    int64_t failed;                  /* findings */
    int64_t numeric;                 /* of them, those about wrong numbers alone */
    int64_t n_failing;               /* cases with one */
    int64_t failing[CHECK_FAILING];  /* the indices of the first of them, as they came */
    int64_t current;                 /* index of the case in progress, -1 none */
    int64_t first;                   /* index of the first failing case, -1 none */
    double worst;                    /* largest error, as a share of its bound */
    int64_t worst_case;              /* its index, -1 none */
    int64_t judged[2];               /* cases whose numbers were right, and wrong */
    int64_t with[2][CHECK_FEATURES]; /* of them, those that have a feature of op_case.h */
    const char *guess; /* what the first wrong numbers usually mean, NULL; a constant */
    double seconds;
    char message[768];
    char case_text[512];
};

/* What every test of an opened file gets. */
struct check {
    const struct check_options *options;
    const attn_op_api *op;               /* or NULL */
    const attn_processor_api *processor; /* or NULL */
    const attn_host *host;     /* threads; queries answered by a router over the plugin's folder */
    const attn_host *shuffled; /* ranges in another order and on other slots */
    attn_registry *registry;
    attn_router *router;
    attn_pool *pool;
    struct gpu *gpu; /* NULL on a CPU */
};

/* In the child: opens the file and a host for it. */
attn_status check_open(struct check *k, const struct check_options *o, struct result *r);

typedef void (*test_function)(const struct check *k, struct result *r);
struct test {
    const char *name;
    const char *what; /* one line for --list */
    test_function run;
    const char *shows; /* what has to be seen of a plugin that is fit to ship; NULL */
};

/* Records a finding; the first one's text and case stay. */
__attribute__((format(printf, 2, 3))) void finding(struct result *r, const char *format, ...);
/* The same, of numbers that are wrong. */
__attribute__((format(printf, 2, 3))) void finding_numeric(struct result *r, const char *format,
                                                           ...);
/* More words for the first finding's text. */
__attribute__((format(printf, 2, 3))) void finding_more(struct result *r, const char *format, ...);
/* Case `index` begins. */
void begin_case(struct result *r, int64_t index, const char *text);
/* Cases of a test at this depth, or the one asked for: *first to *end. */
void case_range(const struct check *k, int64_t quick, int64_t full, int64_t *first, int64_t *end);

/* Runs a test in a child; a crash, a hang (seconds) or an exit is a finding. */
void run_child(const struct check_options *o, const struct test *t, int seconds, struct result *r);

/* File-level tests: nothing of the plugin runs. */
struct heads {
    int has_op, has_processor;
    attn_head op, processor;
};
void static_tests(const struct check_options *o, struct heads *heads, struct result *results,
                  int *n_results);

extern const struct test op_tests[];    /* ends with a NULL name */
extern const struct test layer_tests[]; /* likewise */

/* How far from double precision a dtype may be; approximate ops are held to a cosine. */
double bound_for(const attn_tensor *t);

/* n results of n_all tests; unseen: why none of the plugin's code ran, or NULL. */
void report(const struct check_options *o, const attn_head *head, const struct result *results,
            int n, int n_all, const char *unseen);

/* alloc_count.c: memory calls of this process, the plugin's included. */
struct alloc_counts {
    int64_t taken; /* calls that took memory */
    int64_t live;  /* blocks taken and not given back */
};
int alloc_counting(void); /* 0 where a sanitizer owns the allocator */
struct alloc_counts alloc_now(void);

#endif
