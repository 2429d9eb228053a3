/* The stand-in knows aclnnFlashAttentionScore's rules: each is kept once, which passes, and broken
 * once, which gives the documented code. */
#include "fakecann.h"
#include "rule.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

typedef void edit(struct use *u);

static void none(struct use *u)
{
    (void)u;
}

/* Tensors and places that must be there. */
static void no_query(struct use *u)
{
    u->spec[QUERY].rank = 0;
}
static void no_key(struct use *u)
{
    u->spec[KEY].rank = 0;
}
static void no_value(struct use *u)
{
    u->spec[VALUE].rank = 0;
}
static void no_max(struct use *u)
{
    u->spec[MAX].rank = 0;
}
static void no_sum(struct use *u)
{
    u->spec[SUM].rank = 0;
}
static void no_out(struct use *u)
{
    u->spec[OUT].rank = 0;
}
static void no_layout(struct use *u)
{
    u->no_layout = 1;
}
static void no_workspace_size(struct use *u)
{
    u->no_workspace_size = 1;
}
static void no_executor(struct use *u)
{
    u->no_executor = 1;
}

static void empty_outputs(struct use *u)
{
    use_shape(u, QUERY, 4, 2, 4, 0, 8);
    use_shape(u, MAX, 4, 2, 4, 0, 8);
    use_shape(u, SUM, 4, 2, 4, 0, 8);
    use_shape(u, OUT, 4, 2, 4, 0, 8);
}
static void empty_max(struct use *u)
{
    use_shape(u, MAX, 4, 2, 4, 0, 8);
}

/* Types. */
static void bf16(struct use *u)
{
    use_type(u, ACL_BF16);
}
static void fp32(struct use *u)
{
    use_type(u, ACL_FLOAT);
}
static void bytes(struct use *u)
{
    use_type(u, ACL_UINT8);
}
static void other_key_type(struct use *u)
{
    u->spec[KEY].type = ACL_BF16;
}
static void other_out_type(struct use *u)
{
    u->spec[OUT].type = ACL_FLOAT;
}
static void half_max(struct use *u)
{
    u->spec[MAX].type = ACL_FLOAT16;
}
static void pse(struct use *u)
{
    use_shape(u, PSE, 4, 2, 4, 6, 5);
}
static void pse_shared(struct use *u)
{
    use_shape(u, PSE, 4, 1, 4, 6, 5);
}
static void pse_other_type(struct use *u)
{
    pse(u);
    u->spec[PSE].type = ACL_FLOAT;
}
static void pse_other_shape(struct use *u)
{
    use_shape(u, PSE, 4, 2, 1, 6, 5);
}

/* Heads and layouts. */
static void no_heads(struct use *u)
{
    u->heads = 0;
}
static void other_heads(struct use *u)
{
    u->heads = 3;
}
static void small_letters(struct use *u)
{
    (void)memcpy(u->layout, "bnsd", 5);
}
static void bsnd(struct use *u)
{
    (void)memcpy(u->layout, "BSND", 5);
    use_shape(u, QUERY, 4, 2, 6, 4, 8);
    use_shape(u, KEY, 4, 2, 5, 4, 8);
    use_shape(u, VALUE, 4, 2, 5, 4, 8);
    use_shape(u, OUT, 4, 2, 6, 4, 8);
}
static void bsh(struct use *u)
{
    (void)memcpy(u->layout, "BSH", 4);
    use_shape(u, QUERY, 3, 2, 6, 32, 0);
    use_shape(u, KEY, 3, 2, 5, 32, 0);
    use_shape(u, VALUE, 3, 2, 5, 32, 0);
    use_shape(u, OUT, 3, 2, 6, 32, 0);
}
static void sbh(struct use *u)
{
    (void)memcpy(u->layout, "SBH", 4);
    use_shape(u, QUERY, 3, 6, 2, 32, 0);
    use_shape(u, KEY, 3, 5, 2, 32, 0);
    use_shape(u, VALUE, 3, 5, 2, 32, 0);
    use_shape(u, OUT, 3, 6, 2, 32, 0);
}
static void bsh_of_rank_4(struct use *u)
{
    (void)memcpy(u->layout, "BSH", 4);
}

/* Dimensions. */
static void narrow_value(struct use *u)
{
    use_shape(u, VALUE, 4, 2, 4, 5, 6);
    use_shape(u, OUT, 4, 2, 4, 6, 6);
}
static void wide_value(struct use *u)
{
    use_shape(u, VALUE, 4, 2, 4, 5, 9);
    use_shape(u, OUT, 4, 2, 4, 6, 9);
}
static void other_key_dim(struct use *u)
{
    use_shape(u, KEY, 4, 2, 4, 5, 7);
}
static void dims(struct use *u, int64_t d)
{
    use_shape(u, QUERY, 4, 2, 4, 6, d);
    use_shape(u, KEY, 4, 2, 4, 5, d);
    use_shape(u, VALUE, 4, 2, 4, 5, d);
    use_shape(u, OUT, 4, 2, 4, 6, d);
}
static void dim_768(struct use *u)
{
    dims(u, 768);
}
static void dim_769(struct use *u)
{
    dims(u, 769);
}
static void other_out_shape(struct use *u)
{
    use_shape(u, OUT, 4, 2, 4, 5, 8);
}
static void other_max_shape(struct use *u)
{
    use_shape(u, MAX, 4, 2, 4, 6, 1);
}

/* Masks. */
static void mask_full(struct use *u)
{
    use_mask(u, 4, 2, 4, 6, 5);
}
static void mask_uint8(struct use *u)
{
    mask_full(u);
    u->spec[MASK].type = ACL_UINT8;
}
static void mask_heads(struct use *u)
{
    use_mask(u, 4, 2, 1, 6, 5);
}
static void mask_both(struct use *u)
{
    use_mask(u, 4, 1, 1, 6, 5);
}
static void mask_plain(struct use *u)
{
    use_mask(u, 2, 6, 5, 0, 0);
}
static void mask_of_half(struct use *u)
{
    mask_full(u);
    u->spec[MASK].type = ACL_FLOAT16;
}
static void mask_batch_alone(struct use *u)
{
    use_mask(u, 4, 1, 4, 6, 5);
}
static void mode(struct use *u, int64_t m)
{
    use_mask(u, 2, 2048, 2048, 0, 0);
    u->sparse_mode = m;
    u->inner_precise = 2;
}
static void mode_2(struct use *u)
{
    mode(u, 2);
}
static void mode_3(struct use *u)
{
    mode(u, 3);
}
static void mode_4(struct use *u)
{
    mode(u, 4);
}
static void small_in(struct use *u, int64_t m)
{
    mask_plain(u);
    u->sparse_mode = m;
}
static void small_mode_2(struct use *u)
{
    small_in(u, 2);
}
static void small_mode_3(struct use *u)
{
    small_in(u, 3);
}
static void small_mode_4(struct use *u)
{
    small_in(u, 4);
}
static void small_mode_6(struct use *u)
{
    small_in(u, 6);
}
static void mode_7(struct use *u)
{
    mask_full(u);
    u->sparse_mode = 7;
}
static void band_apart(struct use *u)
{
    mode(u, 4);
    u->pre_tokens = 1;
    u->next_tokens = -2;
}

/* Numbers. */
static void keep_some(struct use *u)
{
    u->keep_prob = 0.5;
}
static void keep_none(struct use *u)
{
    u->keep_prob = 0.0;
}
static void keep_more(struct use *u)
{
    u->keep_prob = 1.5;
}
static void other_batch(struct use *u)
{
    use_shape(u, KEY, 4, 1, 4, 5, 8);
}
static void other_length(struct use *u)
{
    use_shape(u, VALUE, 4, 2, 4, 4, 8);
}
static void grouped(struct use *u)
{
    use_shape(u, KEY, 4, 2, 2, 5, 8);
    use_shape(u, VALUE, 4, 2, 2, 5, 8);
}
static void ungrouped(struct use *u)
{
    use_shape(u, KEY, 4, 2, 3, 5, 8);
    use_shape(u, VALUE, 4, 2, 3, 5, 8);
}
static void sizes(struct use *u, int64_t n, int64_t sq, int64_t sk)
{
    u->heads = n;
    use_shape(u, QUERY, 4, 1, n, sq, 1);
    use_shape(u, KEY, 4, 1, n, sk, 1);
    use_shape(u, VALUE, 4, 1, n, sk, 1);
    use_shape(u, OUT, 4, 1, n, sq, 1);
    use_shape(u, MAX, 4, 1, n, sq, 8);
    use_shape(u, SUM, 4, 1, n, sq, 8);
}
static void heads_256(struct use *u)
{
    sizes(u, 256, 1, 1);
}
static void heads_257(struct use *u)
{
    sizes(u, 257, 1, 1);
}
static void keys_1m(struct use *u)
{
    sizes(u, 1, 1, 1 << 20);
}
static void keys_more(struct use *u)
{
    sizes(u, 1, 1, (1 << 20) + 1);
}
static void queries_1m(struct use *u)
{
    sizes(u, 1, 1 << 20, 1);
}
static void queries_more(struct use *u)
{
    sizes(u, 1, (1 << 20) + 1, 1);
}
static void unaligned(struct use *u)
{
    u->spec[KEY].shift = 16;
}

static const struct {
    const char *rule;
    edit *kept, *broken;
    int32_t code;
} rules[] = {
    {"query is there", none, no_query, 161001},
    {"key is there", none, no_key, 161001},
    {"value is there", none, no_value, 161001},
    {"softmaxMax is there", none, no_max, 161001},
    {"softmaxSum is there", none, no_sum, 161001},
    {"attentionOut is there", none, no_out, 161001},
    {"inputLayout is there", none, no_layout, 161001},
    {"workspaceSize is there", none, no_workspace_size, 161001},
    {"executor is there", none, no_executor, 161001},
    {"all outputs empty", empty_outputs, empty_max, 161002},
    {"type fp16, bf16 or fp32", bf16, bytes, 161002},
    {"fp32 is a type", fp32, bytes, 161002},
    {"key's type is query's", none, other_key_type, 161002},
    {"out's type is query's", none, other_out_type, 161002},
    {"max and sum are FLOAT", none, half_max, 161002},
    {"pse's type is query's", pse, pse_other_type, 161002},
    {"pse's shape", pse_shared, pse_other_shape, 561002},
    {"headNum above 0", none, no_heads, 161002},
    {"headNum is query's", none, other_heads, 561002},
    {"layout in capitals", none, small_letters, 161002},
    {"BSND", bsnd, small_letters, 161002},
    {"BSH has rank 3", bsh, bsh_of_rank_4, 161002},
    {"SBH has rank 3", sbh, bsh_of_rank_4, 161002},
    {"vD is at most kD", narrow_value, wide_value, 161002},
    {"kD is qD", none, other_key_dim, 161002},
    {"D is at most 768", dim_768, dim_769, 161002},
    {"out's shape", none, other_out_shape, 161002},
    {"max is [B,N,Sq,8]", none, other_max_shape, 161002},
    {"mask BOOL", mask_full, mask_of_half, 561002},
    {"mask UINT8", mask_uint8, mask_of_half, 561002},
    {"mask B1SS", mask_heads, mask_batch_alone, 561002},
    {"mask 11SS", mask_both, mask_batch_alone, 561002},
    {"mask SS", mask_plain, mask_batch_alone, 561002},
    {"mode 2: mask 2048 by 2048", mode_2, small_mode_2, 561002},
    {"mode 3: mask 2048 by 2048", mode_3, small_mode_3, 561002},
    {"mode 4: mask 2048 by 2048", mode_4, small_mode_4, 561002},
    {"mode 6: mask 3072 by 2048", none, small_mode_6, 561002},
    {"modes up to 6", mask_full, mode_7, 561002},
    {"band tokens overlap", mode_4, band_apart, 561002},
    {"keepProb above 0", keep_some, keep_none, 561002},
    {"keepProb up to 1", none, keep_more, 561002},
    {"equal batches", none, other_batch, 561002},
    {"equal lengths of key and value", none, other_length, 561002},
    {"Nq / Nkv whole", grouped, ungrouped, 561002},
    {"N up to 256", heads_256, heads_257, 561002},
    {"Skv up to 1M", keys_1m, keys_more, 561002},
    {"Sq up to 1M", queries_1m, queries_more, 561002},
    {"addresses in steps of 32 bytes", none, unaligned, 507015},
};

static int32_t use_edited(edit *change)
{
    struct use u;
    use_default(&u);
    change(&u);
    return use_all(&u);
}

static void test_rules(void **state)
{
    (void)state;
    int wrong = 0;
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        int32_t kept = use_edited(rules[i].kept), broken = use_edited(rules[i].broken);
        int right = kept == 0 && broken == rules[i].code;
        if (!right)
            print_error("%s: kept gives %d, broken %d, expected 0 and %d\n", rules[i].rule, kept,
                        broken, rules[i].code);
        wrong += !right;
    }
    fakecann_forget_violations(); /* of the address beside 32 bytes */
    assert_int_equal(wrong, 0);
    fakecann_live_counts live = fakecann_live();
    assert_int_equal(live.allocations + live.tensors + live.executors, 0);
}

/* What tiling finds may come in phase two alone, which consumes the executor all the same. */
static void test_late_tiling(void **state)
{
    (void)state;
    struct use u;
    fakecann_tell_late(1);
    use_default(&u);
    heads_257(&u);
    use_begin(&u);
    assert_int_equal(use_size(&u), 0);
    assert_int_equal(use_launch(&u, NULL), 561002);
    use_end(&u);
    fakecann_tell_late(0);
    assert_int_equal(fakecann_live().executors, 0);
}

/* A row that sees nothing wants inner precise 2: a stop in strict mode, else the values' mean. */
static void test_hidden_rows(void **state)
{
    (void)state;
    struct use u;
    fakecann_strict(1);
    use_default(&u);
    mode(&u, 4);
    u.next_tokens = -1;
    assert_int_equal(use_all(&u), 0);
    use_default(&u);
    mode(&u, 4);
    u.next_tokens = -1;
    u.inner_precise = 0;
    assert_int_equal(use_all(&u), 507015);
    fakecann_strict(0);
}

static int set_up(void **state)
{
    (void)state;
    return RUNTIME(aclInit)(NULL) != 0 || RUNTIME(aclrtSetDevice)(0) != 0;
}

static int tear_down(void **state)
{
    (void)state;
    return RUNTIME(aclrtResetDevice)(0) != 0 || RUNTIME(aclFinalizeReference)(NULL) != 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_late_tiling),
        cmocka_unit_test(test_hidden_rows),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
