/* Layers of which everything lies in host memory: what is brought to the device, and in what form.
 * The device here is the CPU, whose copies can be looked at. */
#include "check.h"
#include "staged_layer.h"

#include <stdlib.h>

enum { WIDTH = 6, RANK = 2, LINEARS = 12, TERMS = 2 };

static const int64_t square[] = {WIDTH, WIDTH}, vector[] = {WIDTH}, down[] = {RANK, WIDTH},
                     up[] = {WIDTH, RANK};

struct full {
    attn_layer layer;
    attn_term terms[LINEARS][TERMS];
    struct sample samples[LINEARS * (2 + 2 * TERMS) + 6];
    int n;
};

static attn_tensor take(struct full *f, enum layout layout, uint32_t rank, const int64_t *shape)
{
    f->samples[f->n] = sample_random(F16, layout, rank, shape);
    return f->samples[f->n++].t;
}

static attn_linear *linear_at(attn_layer *l, int i)
{
    attn_linear *const all[LINEARS] = {&l->to_q,
                                       &l->to_k,
                                       &l->to_v,
                                       &l->to_out,
                                       &l->add_k,
                                       &l->add_v,
                                       &l->group_norm.conv_y,
                                       &l->group_norm.conv_b,
                                       &l->norm_cross.conv_y,
                                       &l->norm_cross.conv_b,
                                       &l->spatial_norm.conv_y,
                                       &l->spatial_norm.conv_b};
    return all[i];
}

/* A layer with something in every place, needed or not. */
static void full_make(struct full *f)
{
    memset(f, 0, sizeof *f);
    f->layer.size = sizeof f->layer;
    for (int i = 0; i < LINEARS; ++i) {
        attn_linear *l = linear_at(&f->layer, i);
        l->weight = take(f, i % 2 ? TURNED : PLAIN, 2, square);
        l->bias = take(f, i % 2 ? SLICE : PLAIN, 1, vector);
        l->terms = f->terms[i];
        l->n_terms = TERMS;
        for (int t = 0; t < TERMS; ++t)
            f->terms[i][t] = (attn_term){.slot = (uint32_t)t,
                                         .factor = (float)i,
                                         .down = take(f, PLAIN, 2, down),
                                         .up = take(f, TURNED, 2, up)};
    }
    attn_norm *const norms[] = {&f->layer.group_norm, &f->layer.norm_cross, &f->layer.spatial_norm};
    for (int i = 0; i < 3; ++i) {
        norms[i]->weight = take(f, PLAIN, 1, vector);
        norms[i]->bias = take(f, PLAIN, 1, vector);
    }
}

/* Converted to the compute's type, contiguous, with the same values. */
static void same(const attn_tensor *staged, const attn_tensor *given)
{
    assert_true(tensor_f32(staged) && tensor_contiguous(staged));
    assert_true(tensor_same_shape(staged, given));
    for (int64_t i = 0; i < tensor_count(given); ++i)
        assert_true(element(staged, i) == element(given, i));
}

static void every_place_is_staged(void **state)
{
    struct fixture *fixture = *state;
    static struct full f;
    ATTN_ERROR_ON(err, 256);
    struct staged_weights *s = NULL;
    const attn_layer_spec spec = {.size = sizeof spec, .processor = "standard"};
    full_make(&f);
    if (staged_weights_open(fixture->c, &f.layer, &spec, &s, &err) != ATTN_OK)
        fail_msg("%s", err.text);
    attn_layer staged = *staged_layer(s);
    for (int i = 0; i < LINEARS; ++i) {
        const attn_linear *l = linear_at(&staged, i), *given = linear_at(&f.layer, i);
        same(&l->weight, &given->weight);
        same(&l->bias, &given->bias);
        assert_int_equal(l->n_terms, TERMS);
        for (int t = 0; t < TERMS; ++t) {
            assert_int_equal(l->terms[t].slot, t);
            assert_true(l->terms[t].factor == (float)i);
            same(&l->terms[t].down, &given->terms[t].down);
            same(&l->terms[t].up, &given->terms[t].up);
        }
    }
    same(&staged.norm_cross.bias, &f.layer.norm_cross.bias);
    staged_weights_close(s);
    while (f.n)
        sample_release(&f.samples[--f.n]);
}

static void missing_data_is_named(void **state)
{
    struct fixture *fixture = *state;
    static struct full f;
    ATTN_ERROR_ON(err, 256);
    struct staged_weights *s = NULL;
    const attn_layer_spec spec = {.size = sizeof spec, .processor = "standard"};
    full_make(&f);
    attn_layer layer = f.layer;
    layer.to_v.bias.data = NULL;
    assert_int_equal(staged_weights_open(fixture->c, &layer, &spec, &s, &err), ATTN_INVALID);
    assert_string_equal(err.text, "tensor [6] f16 has no data");
    while (f.n)
        sample_release(&f.samples[--f.n]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_place_is_staged),
        cmocka_unit_test(missing_data_is_named),
    };
    return RUN_GROUP(tests);
}
