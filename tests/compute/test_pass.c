/* The arena, the plans, the errors; uploads; threads. */
#include "check.h"
#include "cpu.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static void scratch_is_counted_and_reused(void **state)
{
    struct fixture *f = *state;
    const int64_t a[] = {3, 5}, b[] = {1000};
    ATTN_ERROR_ON(err, 256);
    uint64_t seen[2] = {0, 0};
    attn_work *w = pass_dry(f->pass, &err);
    for (int real = 0; real < 2; ++real) {
        if (real)
            w = pass_real(f->pass, NULL, &err);
        attn_tensor first = work_take(w, NULL, 2, a);
        assert_int_equal(first.data != NULL, real);
        assert_int_equal(first.stride[0], 5);
        uint64_t mark = work_mark(w);
        attn_tensor second = work_take(w, NULL, 1, b);
        work_reset(w, mark);
        attn_tensor third = work_take(w, NULL, 1, b);
        assert_ptr_equal(second.data, third.data);
        assert_int_equal((uintptr_t)third.data % 256, 0);
        seen[real] = w->peak;
    }
    assert_int_equal(seen[0], 256 + 4000);
    assert_int_equal(seen[1], seen[0]);
    assert_int_equal(pass_peak(f->pass), seen[0]);
    (void)work_take(w, NULL, 1, b);
    assert_int_equal(w->status, ATTN_INTERNAL);
    assert_non_null(strstr(err.text, "[1000] f32 of scratch do not fit"));
}

static int released;

static void count_release(struct compute *c, void *plan)
{
    (void)c;
    released += *(int *)plan;
    free(plan);
}

static void plans_are_found_by_content(void **state)
{
    struct fixture *f = *state;
    struct pass *pass;
    ATTN_ERROR_ON(err, 256);
    assert_int_equal(pass_create(f->c, &pass, &err), ATTN_OK);
    attn_work *w = pass_dry(pass, &err);
    struct plan_key key;
    for (int i = 1; i <= 500; ++i) {
        int *plan = malloc(sizeof *plan);
        assert_non_null(plan);
        *plan = i;
        key_begin(&key, "test");
        key_number(&key, i);
        assert_null(plan_find(pass, &key));
        assert_int_equal(plan_keep(w, &key, plan, count_release), ATTN_OK);
    }
    for (int i = 1; i <= 500; ++i) {
        key_begin(&key, "test");
        key_number(&key, i);
        assert_int_equal(*(int *)plan_find(pass, &key), i);
    }
    key_begin(&key, "toast");
    key_number(&key, 1);
    assert_null(plan_find(pass, &key));
    released = 0;
    pass_destroy(pass);
    assert_int_equal(released, 500 * 501 / 2);
}

static void a_key_too_long_is_refused(void **state)
{
    struct fixture *f = *state;
    ATTN_ERROR_ON(err, 256);
    attn_work *w = pass_dry(f->pass, &err);
    static const uint8_t bytes[5000];
    struct plan_key key;
    key_begin(&key, "long");
    key_bytes(&key, bytes, sizeof bytes);
    int *plan = malloc(sizeof *plan);
    assert_non_null(plan);
    *plan = 1;
    released = 0;
    assert_int_equal(plan_keep(w, &key, plan, count_release), ATTN_INVALID);
    assert_int_equal(released, 1);
}

static void the_first_failure_sticks(void **state)
{
    struct fixture *f = *state;
    const int64_t s[] = {2, 2};
    struct sample x = sample_random(F32, PLAIN, 2, s);
    ATTN_ERROR_ON(err, 256);
    attn_work *w = pass_dry(f->pass, &err);
    w->name = "mid_block.attn";
    assert_int_equal(work_fail(w, ATTN_UNSUPPORTED, "first %d", 1), ATTN_UNSUPPORTED);
    assert_int_equal(work_fail(w, ATTN_INVALID, "second"), ATTN_UNSUPPORTED);
    assert_int_equal(f->c->plugin.fill(w, 1.0f, &x.t), ATTN_UNSUPPORTED);
    assert_int_equal(f->c->api->activate(w, ACT_SILU, NULL, NULL), ATTN_UNSUPPORTED);
    assert_int_equal(f->c->plugin.attend(w, NULL), ATTN_UNSUPPORTED);
    assert_string_equal(err.text, "mid_block.attn: first 1");
    sample_release(&x);
}

static void attention_needs_plugins(void **state)
{
    struct fixture *f = *state;
    ATTN_ERROR_ON(err, 256);
    attn_op_call call = {.size = sizeof call};
    attn_work *w = pass_dry(f->pass, &err);
    assert_int_equal(f->c->plugin.attend(w, &call), ATTN_UNSUPPORTED);
    assert_non_null(strstr(err.text, "without plugins"));
}

struct linear_arg {
    attn_tensor x, y;
    attn_linear linear;
};

static void two_linears(attn_work *w, void *arg)
{
    struct linear_arg *a = arg;
    struct compute *c = work_compute(w);
    attn_tensor middle = work_take(w, NULL, a->x.rank, a->x.shape);
    uint64_t mark = work_mark(w);
    c->plugin.linear(w, 1.0f, &a->x, &a->linear, 0.0f, NULL, &middle);
    c->plugin.linear(w, 1.0f, &middle, &a->linear, 0.0f, NULL, &a->y);
    work_reset(w, mark);
    work_reset(w, 0);
}

/* One pass planned for two shapes runs both, in any order. */
static void shapes_share_a_pass(void **state)
{
    struct fixture *f = *state;
    const int64_t big[] = {300, 24}, small[] = {7, 24}, ws[] = {24, 24};
    struct sample w = sample_random(F32, PLAIN, 2, ws);
    struct sample x1 = sample_random(F32, PLAIN, 2, big), y1 = sample_output(F32, PLAIN, 2, big);
    struct sample x2 = sample_random(F32, PLAIN, 2, small),
                  y2 = sample_output(F32, PLAIN, 2, small);
    struct linear_arg a[2] = {{.x = x1.t, .y = y1.t, .linear = {.weight = w.t}},
                              {.x = x2.t, .y = y2.t, .linear = {.weight = w.t}}};
    ATTN_ERROR_ON(err, 256);
    for (int i = 0; i < 2; ++i)
        two_linears(pass_dry(f->pass, &err), &a[i]);
    for (int i = 0; i < 4; ++i) {
        attn_work *work = pass_real(f->pass, NULL, &err);
        assert_non_null(work);
        two_linears(work, &a[i % 2]);
        if (work->status != ATTN_OK)
            fail_msg("%s", err.text);
    }
    for (int64_t i = 0; i < tensor_count(&y2.t); ++i)
        assert_true(element(&y2.t, i) == element(&y2.t, i));
    sample_release(&w);
    sample_release(&x1);
    sample_release(&y1);
    sample_release(&x2);
    sample_release(&y2);
}

static void uploads(void **state)
{
    struct fixture *f = *state;
    const int64_t s[] = {6, 7};
    ATTN_ERROR_ON(err, 256);
    struct sample plain = sample_random(F32, PLAIN, 2, s), half = sample_random(F16, TURNED, 2, s);
    struct sample ids = sample_output(I32, PLAIN, 2, s);
    attn_tensor t;
    assert_int_equal(f->c->api->upload(f->c, &plain.t, NULL, &t, &err), ATTN_OK);
    assert_ptr_equal(t.data, plain.t.data);
    f->c->api->unload(f->c, &t);
    assert_int_equal(t.rank, 0);
    assert_int_equal(f->c->api->upload(f->c, &half.t, NULL, &t, &err), ATTN_OK);
    assert_true(tensor_f32(&t) && tensor_contiguous(&t));
    for (int64_t i = 0; i < 42; ++i)
        assert_true(element(&t, i) == element(&half.t, i));
    f->c->api->unload(f->c, &t);
    attn_tensor bfloat = {.code = ATTN_CODE_BFLOAT, .bits = 16};
    assert_int_equal(f->c->api->upload(f->c, &plain.t, &bfloat, &t, &err), ATTN_OK);
    assert_int_equal(t.code, ATTN_CODE_BFLOAT);
    f->c->api->unload(f->c, &t);
    assert_int_equal(f->c->api->upload(f->c, &ids.t, &ids.t, &t, &err), ATTN_OK);
    f->c->api->unload(f->c, &t);
    assert_int_equal(f->c->api->upload(f->c, &ids.t, NULL, &t, &err), ATTN_UNSUPPORTED);
    assert_string_equal(err.text, "upload: [6, 7] i32 does not convert to [6, 7] f32");
    sample_release(&plain);
    sample_release(&half);
    sample_release(&ids);
}

static void writes_and_reads(void **state)
{
    struct fixture *f = *state;
    const int64_t s[] = {5, 8};
    ATTN_ERROR_ON(err, 256);
    struct sample host = sample_random(F16, PLAIN, 2, s), there = sample_output(F32, PLAIN, 2, s);
    struct sample back = sample_output(F16, PLAIN, 2, s), strided = sample_output(F32, SLICE, 2, s);
    attn_work *w = pass_real(f->pass, NULL, &err);
    assert_int_equal(f->c->api->write(w, &host.t, &there.t), ATTN_OK);
    assert_int_equal(f->c->api->read(w, &there.t, &back.t), ATTN_OK);
    assert_int_equal(f->c->api->synchronize(w), ATTN_OK);
    assert_memory_equal(host.t.data, back.t.data, tensor_bytes(&host.t));
    assert_int_equal(f->c->api->write(w, &host.t, &strided.t), ATTN_INVALID);
    sample_release(&host);
    sample_release(&there);
    sample_release(&back);
    sample_release(&strided);
}

/* -- threads ----------------------------------------------------------------------------------- */

struct visits {
    const struct cpu *cpu;
    _Atomic int counts[5000];
    _Atomic int inside[64];
    int64_t n, grain;
    _Atomic int wrong;
};

static void visit(void *arg, int64_t begin, int64_t end, uint32_t thread)
{
    struct visits *v = arg;
    if (thread >= v->cpu->base.host.max_threads ||
        atomic_fetch_add(&v->inside[thread % 64], 1) != 0)
        atomic_fetch_add(&v->wrong, 1);
    if (end != v->n && (end - begin) % v->grain)
        atomic_fetch_add(&v->wrong, 1);
    for (int64_t i = begin; i < end; ++i)
        atomic_fetch_add(&v->counts[i], 1);
    atomic_fetch_sub(&v->inside[thread % 64], 1);
}

static void visit_nested(void *arg, int64_t begin, int64_t end, uint32_t thread)
{
    struct visits *v = arg;
    (void)thread;
    for (int64_t i = begin; i < end; ++i) {
        struct visits *inner = calloc(1, sizeof *inner);
        inner->cpu = v->cpu;
        inner->n = 100;
        inner->grain = 7;
        parallel(v->cpu, 100, 7, visit, inner);
        for (int j = 0; j < 100; ++j) {
            if (inner->counts[j] != 1)
                atomic_fetch_add(&v->wrong, 1);
        }
        atomic_fetch_add(&v->wrong, inner->wrong);
        free(inner);
    }
}

static void every_index_once(void **state)
{
    struct fixture *f = *state;
    static const int64_t sizes[] = {0, 1, 2, 13, 1000, 4999}, grains[] = {1, 3, 64, 10000};
    for (int i = 0; i < 24; ++i) {
        struct visits *v = calloc(1, sizeof *v);
        assert_non_null(v);
        v->cpu = (struct cpu *)f->c;
        v->n = sizes[i / 4];
        v->grain = grains[i % 4];
        parallel(v->cpu, v->n, v->grain, visit, v);
        for (int j = 0; j < 5000; ++j)
            assert_int_equal(v->counts[j], j < v->n);
        assert_int_equal(v->wrong, 0);
        parallel(v->cpu, 10, 1, visit_nested, v);
        assert_int_equal(v->wrong, 0);
        free(v);
    }
}

/* A program that is inside a team of its own, larger than ours: its threads' numbers are no slots.
 */
static void within_a_team_of_others(void **state)
{
#ifdef _OPENMP
    struct fixture *f = *state;
    const struct cpu *cpu = (struct cpu *)f->c;
    enum { TEAM = 8 };
    struct visits *all[TEAM];
    assert_true(cpu->base.host.max_threads < TEAM);
    for (int i = 0; i < TEAM; ++i) {
        all[i] = calloc(1, sizeof *all[i]);
        assert_non_null(all[i]);
        *all[i] = (struct visits){.cpu = cpu, .n = 100, .grain = 7};
    }
#pragma omp parallel for num_threads(TEAM) schedule(static, 1)
    for (int i = 0; i < TEAM; ++i)
        parallel(cpu, 100, 7, visit, all[i]);
    for (int i = 0; i < TEAM; ++i) {
        assert_int_equal(all[i]->wrong, 0);
        for (int j = 0; j < 100; ++j)
            assert_int_equal(all[i]->counts[j], 1);
        free(all[i]);
    }
#else
    (void)state;
    skip();
#endif
}

/* The variable that forces kernels is shared with the op memory_efficient, which has one set more.
 */
static void amx_is_avx512_here(void **state)
{
    const struct kernels *kernels = NULL;
    char before[16];
    ATTN_ERROR_ON(err, 256);
    (void)state;
    (void)snprintf(before, sizeof before, "%s",
                   getenv("ATTNPLUG_CPU") ? getenv("ATTNPLUG_CPU") : "");
    setenv("ATTNPLUG_CPU", "avx512", 1);
    const bool has = kernels_choose(&kernels, &err) == ATTN_OK;
    setenv("ATTNPLUG_CPU", "amx", 1);
    assert_int_equal(kernels_choose(&kernels, &err), has ? ATTN_OK : ATTN_INVALID);
    if (has)
        assert_string_equal(kernels->name, "avx512");
    else
        assert_non_null(strstr(err.text, "ATTNPLUG_CPU=amx: this processor has c"));
    setenv("ATTNPLUG_CPU", before, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scratch_is_counted_and_reused),
        cmocka_unit_test(plans_are_found_by_content),
        cmocka_unit_test(a_key_too_long_is_refused),
        cmocka_unit_test(the_first_failure_sticks),
        cmocka_unit_test(attention_needs_plugins),
        cmocka_unit_test(shapes_share_a_pass),
        cmocka_unit_test(uploads),
        cmocka_unit_test(writes_and_reads),
        cmocka_unit_test(every_index_once),
        cmocka_unit_test(within_a_team_of_others),
        cmocka_unit_test(amx_is_avx512_here),
    };
    return RUN_GROUP(tests);
}
