/* The tokenizer against ids that transformers' slow CLIPTokenizer gave (tools/golden/tokenizer.py).
 *
 * Arguments: the golden file, and a tokenizer's folder, or sd1 or sd2 for the vocabulary that the
 * library carries, as that version of Stable Diffusion uses it. */
#include "golden.h"

#include <jansson.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tokenizer_private.h"

static const char *golden_file;
static const char *tokenizer_folder;
static tokenizer *tok;

static int tokenizer_setup(void **state)
{
    ATTN_ERROR_ON(err, 256);
    (void)state;
    const int second = strcmp(tokenizer_folder, "sd2") == 0;
    if (second || strcmp(tokenizer_folder, "sd1") == 0
            ? tokenizer_open_clip(second, &tok, &err)
            : tokenizer_open(tokenizer_folder, &tok, &err)) {
        print_error("%s\n", err.text);
        return -1;
    }
    return 0;
}

static int tokenizer_teardown(void **state)
{
    (void)state;
    tokenizer_close(tok);
    return 0;
}

static json_t *golden_load(void)
{
    json_error_t error;
    json_t *golden = json_load_file(golden_file, JSON_ALLOW_NUL, &error);
    assert_non_null(golden);
    return golden;
}

static int ids_agree(const int32_t *ids, size_t count, json_t *expected)
{
    int same = count == json_array_size(expected);
    for (size_t i = 0; same && i < count; i++) {
        same = ids[i] == json_integer_value(json_array_get(expected, i));
    }
    return same;
}

static void test_whole(void **state)
{
    ATTN_ERROR_ON(err, 256);
    json_t *golden = golden_load();
    json_t *texts = json_object_get(golden, "whole");
    size_t failures = 0;
    size_t i;
    json_t *item;
    (void)state;
    json_array_foreach(texts, i, item)
    {
        const char *text = json_string_value(json_object_get(item, "text"));
        id_list ids = {0};
        assert_int_equal(id_list_add(&ids, tok->start), 0);
        assert_int_equal(tokenizer_ids(tok, text, &ids, &err), ATTN_OK);
        assert_int_equal(id_list_add(&ids, tok->end), 0);
        if (!ids_agree(ids.ids, ids.count, json_object_get(item, "ids"))) {
            char *shown = json_dumps(item, JSON_ENSURE_ASCII);
            print_error("%s\n  got", shown);
            for (size_t k = 0; k < ids.count; k++) {
                print_error(" %d", ids.ids[k]);
            }
            print_error("\n");
            free(shown);
            failures++;
        }
        id_list_free(&ids);
    }
    print_message("%zu texts, %zu differ\n", json_array_size(texts), failures);
    assert_true(json_array_size(texts) > 60);
    assert_int_equal(failures, 0);
    json_decref(golden);
}

static void test_padded(void **state)
{
    ATTN_ERROR_ON(err, 256);
    json_t *golden = golden_load();
    json_t *texts = json_object_get(golden, "padded");
    size_t i;
    json_t *item;
    (void)state;
    assert_int_equal(tokenizer_max_length(tok), 77);
    assert_true(json_array_size(texts) > 0);
    json_array_foreach(texts, i, item)
    {
        int32_t ids[77];
        char *cut = NULL;
        const char *text = json_string_value(json_object_get(item, "text"));
        assert_int_equal(tokenizer_encode(tok, text, ids, &cut, &err), ATTN_OK);
        assert_true(ids_agree(ids, 77, json_object_get(item, "ids")));
        free(cut);
    }
    json_decref(golden);
}

/* What diffusers warns of: the ids past the 75th, decoded. */
static void test_cut_is_told(void **state)
{
    ATTN_ERROR_ON(err, 256);
    char text[2048] = "";
    int32_t ids[77];
    char *cut = NULL;
    (void)state;
    for (int i = 0; i < 37; i++) {
        text_append(text, sizeof text, "red heart ");
    }
    text_append(text, sizeof text, "on");
    assert_int_equal(tokenizer_encode(tok, text, ids, &cut, &err), ATTN_OK);
    assert_null(cut);
    text_append(text, sizeof text, " a Blue heart, It's red!");
    assert_int_equal(tokenizer_encode(tok, text, ids, &cut, &err), ATTN_OK);
    assert_non_null(cut);
    assert_string_equal(cut, "a blue heart, it's red!");
    assert_int_equal(ids[76], tok->end);
    free(cut);
}

/* transformers' batch_decode of the same ids, with the tokens added to its tokenizer. */
static void test_cut_new_tokens(void **state)
{
    static const char *const cases[][2] = {
        {"on <cat> blue , dog", "<cat> blue, dog"},
        {"on a<dog>b!", "a <dog> <dog>_1 b!"},
        {"on <cat> <dog>_1", "<cat> <dog>_1"},
        {"on x <cat>, dog's <cat>", "x <cat>, dog's <cat>"},
    };
    ATTN_ERROR_ON(err, 256);
    tokenizer *t = NULL;
    (void)state;
    assert_int_equal(tokenizer_open(tokenizer_folder, &t, &err), ATTN_OK);
    const int32_t first = tokenizer_highest_id(t) + 1;
    assert_int_equal(tokenizer_add(t, "<cat>", first, 1, &err), ATTN_OK);
    assert_int_equal(tokenizer_add(t, "<dog>", first + 1, 2, &err), ATTN_OK);
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        char text[2048] = "";
        int32_t ids[77];
        char *cut = NULL;
        for (int i = 0; i < 37; i++) {
            text_append(text, sizeof text, "red heart ");
        }
        text_append(text, sizeof text, cases[k][0]);
        assert_int_equal(tokenizer_encode(t, text, ids, &cut, &err), ATTN_OK);
        assert_non_null(cut);
        assert_string_equal(cut, cases[k][1]);
        free(cut);
    }
    tokenizer_close(t);
}

static void test_invalid_utf8(void **state)
{
    static const struct {
        const char *text, *offset;
    } cases[] = {
        {"caf\xe9", "offset 3"},
        {"\x80", "offset 0"},
        {"ab\xc0\xaf", "offset 2"},
        {"a\xed\xa0\x80", "offset 1"},
        {"abc\xf5\x80\x80\x80", "offset 3"},
        {"abcd\xe2\x82", "offset 4"},
        {"\xf4\x90\x80\x80", "offset 0"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ATTN_ERROR_ON(err, 256);
        int32_t ids[77];
        char *cut = NULL;
        assert_int_equal(tokenizer_encode(tok, cases[i].text, ids, &cut, &err), ATTN_INVALID);
        assert_non_null(strstr(err.text, cases[i].offset));
        assert_null(cut);
    }
}

/* A folder that tests write broken files to. */
static char scratch[] = "/tmp/attnplug-tokenizer-XXXXXX";

static void file_put(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", scratch, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static void scratch_clear(void)
{
    static const char *const names[] = {"vocab.json", "merges.txt", "tokenizer_config.json",
                                        "special_tokens_map.json", "added_tokens.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[256];
        snprintf(path, sizeof path, "%s/%s", scratch, names[i]);
        unlink(path);
    }
}

static void refused(attn_status expected, const char *part)
{
    ATTN_ERROR_ON(err, 512);
    tokenizer *t = NULL;
    assert_int_equal(tokenizer_open(scratch, &t, &err), expected);
    assert_null(t);
    if (!strstr(err.text, part)) {
        fail_msg("\"%s\" does not say \"%s\"", err.text, part);
    }
}

static const char small_vocab[] = "{\"!\": 0, \"!</w>\": 1, \"a\": 2, \"a</w>\": 3, \"ab</w>\": 4, "
                                  "\"b</w>\": 5, \"<|startoftext|>\": 6, \"<|endoftext|>\": 7}";

/* Stable Diffusion 2 pads with "!", which then is cut out of every prompt as a token of its own. */
static void test_special_tokens(void **state)
{
    ATTN_ERROR_ON(err, 512);
    tokenizer *t = NULL;
    int32_t ids[10];
    const int32_t expected[10] = {6, 4, 0, 5, 8, 9, 7, 0, 0, 0};
    (void)state;
    file_put("vocab.json", small_vocab);
    file_put("merges.txt", "#version: 0.2\r\na b</w>\r\nx\r\n");
    file_put("tokenizer_config.json", "{\"model_max_length\": 10}");
    file_put("special_tokens_map.json",
             "{\"bos_token\": {\"content\": \"<|startoftext|>\", \"lstrip\": false, \"rstrip\": "
             "false, \"single_word\": false, \"normalized\": true}, \"pad_token\": \"!\"}");
    file_put("added_tokens.json", "{\"<cat>\": 8, \"<dog>\": 9}");
    assert_int_equal(tokenizer_open(scratch, &t, &err), ATTN_OK);
    assert_int_equal(tokenizer_encode(t, "AB! b<cat>  <dog>", ids, NULL, &err), ATTN_OK);
    assert_memory_equal(ids, expected, sizeof ids);
    assert_int_equal(tokenizer_highest_id(t), 9);
    tokenizer_close(t);
    scratch_clear();
}

static void test_broken_folders(void **state)
{
    (void)state;
    scratch_clear();
    refused(ATTN_NOT_FOUND, "vocab.json");
    file_put("vocab.json", "{\"a\": 1, ");
    refused(ATTN_INVALID, "vocab.json");
    file_put("vocab.json", "[1]");
    refused(ATTN_INVALID, "must be a JSON object");
    file_put("vocab.json", "{\"a\": -1}");
    refused(ATTN_INVALID, "token a");
    file_put("vocab.json", "{\"a\": \"x\"}");
    refused(ATTN_INVALID, "token a");
    file_put("vocab.json", "{\"a\": 2000000000}");
    refused(ATTN_INVALID, "token a");
    file_put("vocab.json", small_vocab);
    refused(ATTN_NOT_FOUND, "merges.txt");
    char path[256];
    snprintf(path, sizeof path, "%s/merges.txt", scratch);
    assert_int_equal(mkfifo(path, 0600), 0);
    refused(ATTN_INVALID, "merges.txt: not a file");
    assert_int_equal(unlink(path), 0);
    file_put("merges.txt", "");
    assert_int_equal(truncate(path, (64 << 20) + 1), 0);
    refused(ATTN_INVALID, "merges.txt: larger than 64 MiB");
    file_put("merges.txt", "");
    refused(ATTN_NOT_FOUND, "tokenizer_config.json");
    file_put("tokenizer_config.json", "{\"model_max_length\": 2}");
    refused(ATTN_INVALID, "model_max_length");
    file_put("tokenizer_config.json", "{\"bos_token\": 5}");
    refused(ATTN_INVALID, "/tokenizer_config.json: token bos_token");
    file_put("tokenizer_config.json", "{\"added_tokens_decoder\": {\"x\": \"<a>\"}}");
    refused(ATTN_INVALID, "/tokenizer_config.json: added token x");
    file_put("tokenizer_config.json", "{\"added_tokens_decoder\": {\"3\": 4}}");
    refused(ATTN_INVALID, "/tokenizer_config.json: token 3: neither");
    file_put("tokenizer_config.json", "{}");
    file_put("special_tokens_map.json", "{\"unk_token\": []}");
    refused(ATTN_INVALID, "/special_tokens_map.json: token unk_token");
    file_put("added_tokens.json", "{\"<a>\": -3}");
    refused(ATTN_INVALID, "/added_tokens.json: added token <a>");
    file_put("added_tokens.json", "[]");
    refused(ATTN_INVALID, "/added_tokens.json: must be");
    scratch_clear();
}

/* CLIP's well-known numbers. */
static void test_the_carried_vocabulary(void **state)
{
    ATTN_ERROR_ON(err, 512);
    const int32_t expected[7] = {49406, 320, 1125, 539, 320, 2368, 49407};
    int32_t ids[77];
    (void)state;
    assert_int_equal(tokenizer_max_length(tok), 77);
    assert_int_equal(tokenizer_highest_id(tok), 49407);
    assert_int_equal(tokenizer_encode(tok, "A photo of a cat", ids, NULL, &err), ATTN_OK);
    assert_int_equal(ids[0], expected[0]);
    assert_memory_equal(ids + 3, expected + 3, 4 * sizeof *ids);
    assert_int_equal(ids[7], strcmp(tokenizer_folder, "sd2") == 0 ? 0 : 49407);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest carried[] = {
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_padded),
        cmocka_unit_test(test_the_carried_vocabulary),
    };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),          cmocka_unit_test(test_padded),
        cmocka_unit_test(test_cut_is_told),    cmocka_unit_test(test_invalid_utf8),
        cmocka_unit_test(test_special_tokens), cmocka_unit_test(test_broken_folders),
        cmocka_unit_test(test_cut_new_tokens),
    };
    if (argc != 3 || !mkdtemp(scratch)) {
        return 2;
    }
    golden_file = argv[1];
    tokenizer_folder = argv[2];
    int failures = strncmp(tokenizer_folder, "sd", 2) == 0
                       ? cmocka_run_group_tests(carried, tokenizer_setup, tokenizer_teardown)
                       : cmocka_run_group_tests(tests, tokenizer_setup, tokenizer_teardown);
    rmdir(scratch);
    return failures;
}
