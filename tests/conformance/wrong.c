/* wrong.c: a right op with one fault, chosen at build time, so that each test of `attnplug check`
 * can be seen to fail; or a right op that takes little (NARROW_...), which is no fault.  The right
 * op is the template of tools/new-plugin; a fault wraps one of its functions. */
#include "attn_abi.h"

#define attn_op_v1 right_op
#include "right.c"
#undef attn_op_v1

#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

/* What a fault replaces; the right functions stay behind it. */
static attn_status wrong_run(attn_op_plan *plan, const attn_op_call *c, attn_error *err);

#if defined(FAULT_ignores_scale) || defined(FAULT_ignores_mask) ||                                 \
    defined(FAULT_band_off_by_one) || defined(FAULT_ignores_bias) ||                               \
    defined(FAULT_one_key_head) || defined(FAULT_out_strides) || defined(FAULT_scale_of_one)
static attn_status wrong_run(attn_op_plan *plan, const attn_op_call *c, attn_error *err)
{
    attn_op_call other = *c;
#if defined(FAULT_ignores_scale)
    other.scale = 0;
#elif defined(FAULT_scale_of_one)
    other.scale = other.scale != 0 ? other.scale : 1;
#elif defined(FAULT_ignores_mask)
    other.mask.rank = 0;
#elif defined(FAULT_band_off_by_one)
    other.band_hi += other.band_hi < INT64_MAX;
#elif defined(FAULT_ignores_bias)
    other.bias.rank = 0;
#elif defined(FAULT_one_key_head)
    other.k.stride[1] = 0;
#else
    other.out.stride[2] = other.out.shape[3];
    other.out.stride[1] = other.out.shape[2] * other.out.stride[2];
    other.out.stride[0] = other.out.shape[1] * other.out.stride[1];
#endif
    return run(plan, &other, err);
}

#elif defined(FAULT_coarse) || defined(FAULT_too_coarse) || defined(FAULT_coarse_and_says_so)
/* Results of 6 or 3 bits, as a kernel with short products has them. */
static attn_status wrong_run(attn_op_plan *plan, const attn_op_call *c, attn_error *err)
{
#if defined(FAULT_too_coarse)
    const float factor = 8;
#else
    const float factor = 128;
#endif
    attn_status s = run(plan, c, err);
    for (int64_t b = 0; b < c->out.shape[0]; b++)
        for (int64_t h = 0; h < c->out.shape[1]; h++)
            for (int64_t i = 0; i < c->out.shape[2]; i++)
                for (int64_t d = 0; d < c->out.shape[3]; d++) {
                    float *o = &AT(float, c->out, b, h, i, d);
                    int power;
                    float part = frexpf(*o, &power);
                    *o = ldexpf(roundf(part * factor) / factor, power);
                }
    return s;
}

#elif defined(FAULT_log2_lse)
static attn_status wrong_run(attn_op_plan *plan, const attn_op_call *c, attn_error *err)
{
    attn_status s = run(plan, c, err);
    for (int64_t b = 0; c->lse.rank && b < c->lse.shape[0]; b++)
        for (int64_t h = 0; h < c->lse.shape[1]; h++)
            for (int64_t i = 0; i < c->lse.shape[2]; i++)
                ((float *)c->lse
                     .data)[b * c->lse.stride[0] + h * c->lse.stride[1] + i * c->lse.stride[2]] *=
                    1.442695f;
    return s;
}

#elif defined(FAULT_sums_key_mass)
static attn_status wrong_run(attn_op_plan *plan, const attn_op_call *c, attn_error *err)
{
    attn_status s = run(plan, c, err);
    for (int64_t b = 0; c->key_mass.rank && b < c->key_mass.shape[0]; b++)
        for (int64_t j = 0; j < c->key_mass.shape[1]; j++)
            ((float *)c->key_mass.data)[b * c->key_mass.stride[0] + j * c->key_mass.stride[1]] *=
                (float)c->q.shape[1];
    return s;
}

#elif defined(FAULT_nan_in_dark_rows)
static attn_status wrong_run(attn_op_plan *plan, const attn_op_call *c, attn_error *err)
{
    attn_status s = run(plan, c, err);
    for (int64_t b = 0; c->mask.rank && b < c->out.shape[0]; b++)
        for (int64_t h = 0; h < c->out.shape[1]; h++)
            for (int64_t i = 0; i < c->out.shape[2]; i++) {
                int dark = 1;
                for (int64_t j = 0; j < c->k.shape[2]; j++)
                    dark &= !AT(const unsigned char, c->mask, b, h, i, j);
                for (int64_t d = 0; dark && d < c->out.shape[3]; d++)
                    AT(float, c->out, b, h, i, d) = NAN;
            }
    return s;
}

#elif defined(FAULT_nan_without_keys)
static attn_status wrong_run(attn_op_plan *plan, const attn_op_call *c, attn_error *err)
{
    attn_status s = run(plan, c, err);
    for (int64_t b = 0; c->k.shape[2] == 0 && b < c->out.shape[0]; b++)
        for (int64_t h = 0; h < c->out.shape[1]; h++)
            for (int64_t i = 0; i < c->out.shape[2]; i++)
                for (int64_t d = 0; d < c->out.shape[3]; d++)
                    AT(float, c->out, b, h, i, d) = NAN;
    return s;
}

#elif defined(FAULT_another_function)
/* Weights that fall where the softmax's rise. */
static attn_status wrong_run(attn_op_plan *plan, const attn_op_call *c, attn_error *err)
{
    attn_op_call other = *c;
    other.scale = -1;
    return run(plan, &other, err);
}

#elif defined(FAULT_writes_past_out)
static attn_status wrong_run(attn_op_plan *plan, const attn_op_call *c, attn_error *err)
{
    attn_status s = run(plan, c, err);
    int64_t last = 1;
    for (int a = 0; a < 4; a++)
        last += (c->out.shape[a] - 1) * c->out.stride[a];
    ((volatile float *)c->out.data)[last] = 1;
    return s;
}

#elif defined(FAULT_writes_between_rows)
static attn_status wrong_run(attn_op_plan *plan, const attn_op_call *c, attn_error *err)
{
    attn_status s = run(plan, c, err);
    if (c->out.shape[0] && c->out.shape[1] && c->out.shape[2] > 1 && c->out.stride[3] == 1 &&
        c->out.shape[1] == 1 && c->out.stride[2] > c->out.shape[3])
        ((volatile float *)c->out.data)[c->out.shape[3]] = 1;
    return s;
}

#elif defined(FAULT_writes_to_q)
/* As a kernel that scales the queries where they lie. */
static attn_status wrong_run(attn_op_plan *plan, const attn_op_call *c, attn_error *err)
{
    if (c->q.shape[0] && c->q.shape[1] && c->q.shape[2] && c->q.shape[3])
        *(float *)c->q.data *= 0.5f;
    return run(plan, c, err);
}

#elif defined(FAULT_absolute_strides) || defined(FAULT_mirrors_views)
/* Strides without their sign, from element 0 on or from the lowest address. */
static attn_status wrong_run(attn_op_plan *plan, const attn_op_call *c, attn_error *err)
{
    attn_op_call other = *c;
    attn_tensor *const inputs[] = {&other.q, &other.k, &other.v, &other.bias, &other.mask};
    for (int i = 0; i < 5; i++)
        for (uint32_t a = 0; a < inputs[i]->rank; a++) {
            attn_tensor *t = inputs[i];
            if (t->stride[a] >= 0)
                continue;
#if defined(FAULT_mirrors_views)
            if (t->shape[a] > 1)
                t->data = (char *)t->data + (t->shape[a] - 1) * t->stride[a] * (t->bits / 8);
#endif
            t->stride[a] = -t->stride[a];
        }
    return run(plan, &other, err);
}

#elif defined(FAULT_reads_old_scratch)
static attn_status wrong_run(attn_op_plan *plan, const attn_op_call *c, attn_error *err)
{
    float old = c->scratch_bytes >= 4 ? *(float *)c->scratch : 0;
    attn_status s = run(plan, c, err);
    if (c->out.shape[0] && c->out.shape[1] && c->out.shape[2] && c->out.shape[3] && !(old < 1))
        *(float *)c->out.data += 1;
    return s;
}

#elif defined(FAULT_adds_to_out)
static attn_status wrong_run(attn_op_plan *plan, const attn_op_call *c, attn_error *err)
{
    float old = c->out.shape[0] && c->out.shape[2] ? *(float *)c->out.data : 0;
    attn_status s = run(plan, c, err);
    if (c->out.shape[0] && c->out.shape[2])
        *(float *)c->out.data += old;
    return s;
}

#elif defined(FAULT_allocates_in_run)
static attn_status wrong_run(attn_op_plan *plan, const attn_op_call *c, attn_error *err)
{
    void *volatile p = malloc(100);
    free(p);
    return run(plan, c, err);
}

#elif defined(FAULT_exits)
static attn_status wrong_run(attn_op_plan *plan, const attn_op_call *c, attn_error *err)
{
    if (c->q.shape[2] == 77)
        exit(0);
    return run(plan, c, err);
}

#elif defined(FAULT_hangs)
static attn_status wrong_run(attn_op_plan *plan, const attn_op_call *c, attn_error *err)
{
    while (c->q.shape[2] == 77)
        pause();
    return run(plan, c, err);
}

#elif defined(FAULT_shares_a_call)
/* One call for all threads: what a second one writes there changes the first. */
static attn_op_call shared;
static attn_status wrong_run(attn_op_plan *plan, const attn_op_call *c, attn_error *err)
{
    shared = *c;
    usleep(2000);
    return run(plan, &shared, err);
}

#elif defined(FAULT_counts_threads)
/* The result knows how many slots the host has. */
static attn_status wrong_run(attn_op_plan *plan, const attn_op_call *c, attn_error *err)
{
    attn_status s = run(plan, c, err);
    if (c->out.shape[0] && c->out.shape[1] && c->out.shape[2] && c->out.shape[3])
        *(float *)c->out.data *= 1 + 1e-7f * (float)((struct attn_op *)plan)->host->max_threads;
    return s;
}

#elif defined(FAULT_loses_precision)
static attn_status wrong_run(attn_op_plan *plan, const attn_op_call *c, attn_error *err)
{
    attn_status s = run(plan, c, err);
    for (int64_t b = 0; c->k.shape[2] > 1000 && b < c->out.shape[0]; b++)
        for (int64_t h = 0; h < c->out.shape[1]; h++)
            for (int64_t i = 0; i < c->out.shape[2]; i++)
                AT(float, c->out, b, h, i, 0) *= 1.0001f;
    return s;
}

#elif defined(FAULT_spreads_nan)
static attn_status wrong_run(attn_op_plan *plan, const attn_op_call *c, attn_error *err)
{
    attn_status s = run(plan, c, err);
    float sum = 0;
    for (int64_t b = 0; b < c->out.shape[0]; b++)
        for (int64_t h = 0; h < c->out.shape[1]; h++)
            for (int64_t i = 0; i < c->out.shape[2]; i++)
                sum += AT(float, c->out, b, h, i, 0);
    for (int64_t b = 0; b < c->out.shape[0] && !isfinite(sum); b++)
        for (int64_t h = 0; h < c->out.shape[1]; h++)
            for (int64_t i = 0; i < c->out.shape[2]; i++)
                AT(float, c->out, b, h, i, 0) = sum;
    return s;
}

#else
static attn_status wrong_run(attn_op_plan *plan, const attn_op_call *c, attn_error *err)
{
    return run(plan, c, err);
}
#endif

/* -- what an honest op may refuse
 * ---------------------------------------------------------------------------
 */

static int is_packed(const attn_tensor *t)
{
    return t->stride[3] == 1 && t->stride[2] == t->shape[3] &&
           t->stride[1] == t->shape[2] * t->stride[2] && t->stride[0] == t->shape[1] * t->stride[1];
}

static const char *too_much(const attn_op_call *c)
{
    (void)is_packed;
#if defined(NARROW_d40)
    return c->q.shape[3] != 40 ? "D: expected 40" : NULL;
#elif defined(NARROW_d64)
    return c->q.shape[3] != 64 ? "D: expected 64" : NULL;
#elif defined(NARROW_d128)
    return c->q.shape[3] != 128 ? "D: expected 128" : NULL;
#elif defined(NARROW_tiles)
    return c->q.shape[2] % 64 || c->k.shape[2] % 64 ? "Nq, Nk: expected multiples of 64" : NULL;
#elif defined(NARROW_packed)
    return is_packed(&c->q) && is_packed(&c->k) && is_packed(&c->v) && is_packed(&c->out)
               ? NULL
               : "q, k, v, out: expected packed tensors";
#elif defined(NARROW_equal_heads)
    return c->q.shape[1] != c->k.shape[1] ? "k: expected as many heads as q" : NULL;
#elif defined(NARROW_everything)
    return c->q.shape[3] != 64 || c->q.shape[2] % 64 || c->k.shape[2] % 64 || c->bias.rank ||
                   c->mask.rank || c->lse.rank || c->key_mass.rank || c->probs.rank ||
                   c->flags & ATTN_CALL_BAND || c->q.shape[1] != c->k.shape[1] ||
                   !is_packed(&c->q) || !is_packed(&c->k) || !is_packed(&c->v) ||
                   !is_packed(&c->out)
               ? "takes very little"
               : NULL;
#elif defined(NARROW_no_lse)
    return c->lse.rank ? "lse: not given" : NULL;
#elif defined(FAULT_takes_d37_alone)
    return c->q.shape[3] != 37 ? "D: expected 37" : NULL;
#else
    (void)c;
    return NULL;
#endif
}

static attn_status asked(attn_op *op, const attn_op_call *c, attn_error *err)
{
#if defined(FAULT_unsupported_for_types)
    if (!same_type(&c->k, &c->q) || !same_type(&c->v, &c->q) || !same_type(&c->out, &c->q))
        return refuse(err, ATTN_UNSUPPORTED, "k, v, out: types that q does not have");
#endif
    attn_status s = supports(op, c, err);
    const char *refusal = s == ATTN_OK ? too_much(c) : NULL;
    if (refusal)
        return refuse(err, ATTN_UNSUPPORTED, "%s", refusal);
#if defined(FAULT_invalid_for_strides)
    if (s == ATTN_OK && c->q.stride[3] != 1)
        return refuse(err, ATTN_INVALID, "q: stride[3] is %lld", (long long)c->q.stride[3]);
#elif defined(FAULT_invalid_for_mask)
    if (s == ATTN_OK && c->mask.rank)
        return refuse(err, ATTN_INVALID, "no masks");
#endif
    return s;
}

/* -- prepare, supports
 * -------------------------------------------------------------------------------------- */

static attn_status wrong_prepare(attn_op *op, const attn_op_call *c, attn_op_plan **plan,
                                 uint64_t *scratch, attn_error *err)
{
    attn_status s = asked(op, c, err);
    if (s == ATTN_OK)
        s = prepare(op, c, plan, scratch, err);
#if defined(FAULT_too_little_scratch)
    if (s == ATTN_OK)
        *scratch /= 2;
#elif defined(FAULT_refuses_later)
    if (s == ATTN_OK && c->bias.rank)
        return refuse(err, ATTN_UNSUPPORTED, "no bias after all");
#elif defined(FAULT_reads_data_early)
    if (s == ATTN_OK && c->q.shape[2] > 100)
        *scratch += (uint64_t)(*(volatile float *)c->q.data > 1e30f);
#elif defined(FAULT_no_plan)
    *plan = NULL;
#endif
    return s;
}

static attn_status wrong_supports(attn_op *op, const attn_op_call *c, attn_error *err)
{
#if defined(FAULT_takes_anything)
    (void)op, (void)c, (void)err;
    return ATTN_OK;
#elif defined(FAULT_ignores_capacity)
    attn_status s = supports(op, c, err);
    if (s != ATTN_OK && err)
        err->text[0] = 'x';
    return s;
#elif defined(FAULT_wants_its_own_size)
    return c->size != sizeof *c ? refuse(err, ATTN_INVALID, "call: size %u", c->size)
                                : supports(op, c, err);
#elif defined(FAULT_no_text)
    return supports(op, c, NULL) + 0 * (err == NULL);
#elif defined(FAULT_long_text)
    attn_status s = supports(op, c, err);
    if (s != ATTN_OK && err && err->text)
        memset(err->text, 'a', err->capacity + 4);
    return s;
#elif defined(FAULT_refuses_everything)
    (void)op, (void)c;
    return refuse(err, ATTN_UNSUPPORTED, "not today");
#elif defined(FAULT_odd_status)
    return supports(op, c, err) == ATTN_OK ? ATTN_OK : 42;
#else
    return asked(op, c, err);
#endif
}

/* -- create
 * -----------------------------------------------------------------------------------------------
 */

#if defined(FAULT_leaves_a_thread)
static void *sleeper(void *arg)
{
    for (;;)
        pause();
    return arg;
}
#endif
#if defined(FAULT_takes_a_signal)
static void handler(int n)
{
    (void)n;
}
#endif

static attn_status wrong_create(const attn_host *host, const attn_device *device,
                                const attn_param *params, uint32_t n_params, attn_op **op,
                                attn_error *err)
{
#if defined(FAULT_takes_any_parameter)
    (void)params, (void)n_params;
    return create(host, device, NULL, 0, op, err);
#elif defined(FAULT_starts_nowhere) || defined(FAULT_lives_elsewhere)
    return refuse(err, ATTN_UNSUPPORTED, "no such chip");
#elif defined(FAULT_leaks)
    void *volatile lost = malloc(1000);
    (void)lost;
#elif defined(FAULT_leaves_a_thread)
    pthread_t t;
    pthread_create(&t, NULL, sleeper, NULL);
#elif defined(FAULT_leaves_a_process)
    if (fork() == 0)
        for (;;)
            pause();
#elif defined(FAULT_changes_rounding)
    static int lives;
    if (++lives > 25)
        fesetround(FE_UPWARD);
#elif defined(FAULT_takes_a_signal)
    static int lives;
    if (++lives > 25)
        signal(SIGUSR1, handler);
#elif defined(FAULT_crashes)
    raise(SIGSEGV);
#endif
    return create(host, device, params, n_params, op, err);
}

#if defined(FAULT_exports_more)
__attribute__((visibility("default"))) int helper_of_mine(void);
int helper_of_mine(void)
{
    return 1;
}
#endif

const attn_op_api attn_op_v1 = {
#if defined(FAULT_wrong_magic)
    .head = {.magic = 0x12345678,
#else
    .head = {.magic = ATTN_MAGIC,
#endif
             .abi = ATTN_ABI,
             .size = sizeof(attn_op_api),
#if defined(FAULT_lives_elsewhere)
             .devices = UINT64_C(1) << ATTN_DEVICE_EXT,
#else
             .devices = UINT64_C(1) << ATTN_DEVICE_CPU,
#endif
#if defined(FAULT_promises_halves)
             .dtypes = ATTN_DTYPE_F32 | ATTN_DTYPE_F16,
#else
             .dtypes = ATTN_DTYPE_F32,
#endif
#if defined(FAULT_too_coarse) || defined(FAULT_coarse_and_says_so) ||                              \
    defined(FAULT_another_function)
             .flags = ATTN_HEAD_APPROXIMATE,
#endif
             .id = "org.attnplug.test.wrong",
             .version = "1.0.0",
             .vendor = "attnplug",
             .summary = "one fault"},
    .create = wrong_create,
    .destroy = destroy,
    .supports = wrong_supports,
    .prepare = wrong_prepare,
    .run = wrong_run,
    .release = release,
};
