/* probe_try.c: create, ask, prepare, run and destroy on a CPU, with small attentions. */
#include "probe_try.h"

#include "boundary_limits.h"
#include "error.h"
#include "probe_call.h"

#include <stdlib.h>
#include <string.h>

static const attn_host host = {.size = sizeof host, .max_threads = 1};
static const attn_device cpu = {ATTN_DEVICE_CPU, 0, "cpu"};

/* Damaged code reads what nobody gave it: another function's arguments, or a register that it
 * forgot to set.  Here all of those hold an address that is fatal to use, and nothing that only
 * happens to be right. */
#define NOTHING ((void *)16)

#if defined(__x86_64__)
void *call_bare(const void *function, void *const arguments[6]);
__asm__(".text\n"
        ".type call_bare, @function\n"
        "call_bare:\n"
        "    push %rbp\n    push %rbx\n    push %r12\n    push %r13\n    push %r14\n    push %r15\n"
        "    sub $8, %rsp\n"
        "    mov %rdi, %rax\n"
        "    mov %rsi, %r11\n"
        "    mov 0(%r11), %rdi\n    mov 8(%r11), %rsi\n    mov 16(%r11), %rdx\n"
        "    mov 24(%r11), %rcx\n    mov 32(%r11), %r8\n    mov 40(%r11), %r9\n"
        "    mov $16, %ebx\n"
        "    mov %rbx, %rbp\n    mov %rbx, %r10\n    mov %rbx, %r11\n    mov %rbx, %r12\n"
        "    mov %rbx, %r13\n    mov %rbx, %r14\n    mov %rbx, %r15\n"
        "    call *%rax\n"
        "    add $8, %rsp\n"
        "    pop %r15\n    pop %r14\n    pop %r13\n    pop %r12\n    pop %rbx\n    pop %rbp\n"
        "    ret\n"
        ".size call_bare, . - call_bare\n");
#else
/* The convention lets a caller pass more than a function takes. */
static void *call_bare(const void *function, void *const a[6])
{
    void *(*f)(void *, void *, void *, void *, void *, void *);
    memcpy(&f, &function, sizeof f);
    return f(a[0], a[1], a[2], a[3], a[4], a[5]);
}
#endif

#define CALL(function, ...)                                                                        \
    ((attn_status)(intptr_t)call_bare(*(void *const *)&(function), (void *[6]){__VA_ARGS__}))
#define CALL_1(function, a)             CALL(function, a, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING)
#define CALL_3(function, a, b, c)       CALL(function, a, b, c, NOTHING, NOTHING, NOTHING)
#define CALL_5(function, a, b, c, d, e) CALL(function, a, b, c, d, e, NOTHING)

/* What earlier calls left on the stack is not what a function finds there by accident: each round
 * of calls finds something else. */
__attribute__((noinline)) static void stir_stack(int pattern)
{
    volatile char noise[1 << 14];
    for (size_t i = 0; i < sizeof noise; i++) {
        noise[i] = (char)pattern;
    }
}

static const int patterns[] = {0x00, 0xa5, 0xff};
enum { N_PATTERNS = sizeof patterns / sizeof *patterns };

static attn_status known(const char *function, attn_status status, attn_error *err)
{
    return status >= ATTN_OK && status <= ATTN_INTERNAL
               ? status
               : attn_fail(err, -1, "%s returned status %d, which attn_abi.h lacks", function,
                           status);
}

static bool run(const attn_op_api *api, attn_op_plan *plan, uint64_t bytes, int pattern,
                probe_call *c, attn_error *err)
{
    c->call.scratch = aligned_alloc(256, (bytes + 256) & ~UINT64_C(255));
    c->call.scratch_bytes = bytes;
    if (!c->call.scratch) {
        return true;
    }
    memset(c->call.scratch, 0xff, bytes);
    stir_stack(pattern);
    attn_status status = known("run", CALL_3(api->run, plan, &c->call, err), err);
    free(c->call.scratch);
    return status == ATTN_OK
               ? probe_call_right(c, (api->head.flags & ATTN_HEAD_APPROXIMATE) != 0, err)
               : status > 0;
}

/* A refusal is fine; so is a plan that is not to be had. */
static bool call_op(const attn_op_api *api, attn_op *op, int pattern, probe_call *c,
                    attn_error *err)
{
    attn_op_plan *plan = NULL;
    uint64_t bytes = 0;
    stir_stack(pattern);
    attn_status status = known("supports", CALL_3(api->supports, op, &c->call, err), err);
    if (status != ATTN_OK) {
        return status > 0;
    }
    stir_stack(pattern);
    status = known("prepare", CALL_5(api->prepare, op, &c->call, &plan, &bytes, err), err);
    if (status != ATTN_OK) {
        return status > 0;
    }
    if (!plan || bytes > BOUNDARY_MAX_SCRATCH) {
        attn_fail(err, -1, "prepare returned ok and %s",
                  plan ? "a scratch size beyond reason" : "no plan");
        return false;
    }
    bool good = run(api, plan, bytes, pattern, c, err);
    stir_stack(pattern);
    (void)CALL_1(api->release, plan);
    return good;
}

static bool call_all(const attn_op_api *api, attn_op *op, attn_error *err)
{
    static probe_call c;
    bool good = true;
    for (int round = 0; round < N_PATTERNS; round++) {
        for (int i = 0; good && probe_call_make(i, &c); i++) {
            good = call_op(api, op, patterns[round], &c, err);
        }
    }
    return good;
}

static bool try_op(const attn_op_api *api, attn_error *err)
{
    attn_op *op = NULL;
    if (api->query) {
        (void)CALL_1(api->query, (void *)(uintptr_t) "attn.no-such-interface/1");
    }
    if (!(api->head.devices >> ATTN_DEVICE_CPU & 1)) {
        return true;
    }
    attn_status status = known(
        "create",
        CALL(api->create, (void *)(uintptr_t)&host, (void *)(uintptr_t)&cpu, NULL, NULL, &op, err),
        err);
    if (status != ATTN_OK) {
        return status > 0;
    }
    if (!op) {
        attn_fail(err, -1, "create returned ok and no op");
        return false;
    }
    bool good = !(api->head.dtypes & ATTN_DTYPE_F32) || call_all(api, op, err);
    (void)CALL_1(api->destroy, op);
    return good;
}

static bool try_processor(const attn_processor_api *api, attn_error *err)
{
    attn_processor *processor = NULL;
    if (api->query) {
        (void)CALL_1(api->query, (void *)(uintptr_t) "attn.no-such-interface/1");
    }
    if (!(api->head.devices >> ATTN_DEVICE_CPU & 1)) {
        return true;
    }
    attn_status status = known("create",
                               CALL(api->create, (void *)(uintptr_t)&host, (void *)(uintptr_t)&cpu,
                                    NULL, NULL, &processor, err),
                               err);
    if (status != ATTN_OK) {
        return status > 0;
    }
    if (!processor) {
        attn_fail(err, -1, "create returned ok and no processor");
        return false;
    }
    (void)CALL_1(api->destroy, processor);
    return true;
}

bool probe_try(const image *im, const elf_heads *heads, attn_error *err)
{
    return (!heads->has_op || try_op(image_op(im), err)) &&
           (!heads->has_processor || try_processor(image_processor(im), err));
}
