/* Which tokens are special: tokenizer_config.json, special_tokens_map.json and added_tokens.json,
 * merged as transformers v4.37.2 merges them (tokenization_utils_base.py, _from_pretrained;
 * tokenization_utils.py, _add_tokens). */
#include "tokenizer_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "json_file.h"

/* A prompt of more tokens than this is no CLIP model's. */
enum { LONGEST_MODEL = 1 << 20 };

static const char *const special_names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                            "pad_token", "cls_token", "mask_token"};
enum { SPECIALS = sizeof special_names / sizeof *special_names };

/* What CLIPTokenizer falls back on. */
static const char *const special_defaults[SPECIALS] = {
    "<|startoftext|>", "<|endoftext|>", "<|endoftext|>", NULL, "<|endoftext|>", NULL, NULL};

const added_token *added_find(const tokenizer *t, const char *content)
{
    for (size_t i = 0; i < t->added_count; i++) {
        if (strcmp(t->added[i].content, content) == 0) {
            return &t->added[i];
        }
    }
    return NULL;
}

/* What the files of a folder hold; map and legacy may be NULL. */
typedef struct {
    json_t *settings, *map, *legacy;
    const char *at; /* the file that is looked at, for texts */
} token_files;

static const char settings_name[] = "tokenizer_config.json";
static const char map_name[] = "special_tokens_map.json";
static const char legacy_name[] = "added_tokens.json";

/* A token is written as its text or as an object with its text and flags. */
static const char *token_text(json_t *token)
{
    return json_string_value(json_is_object(token) ? json_object_get(token, "content") : token);
}

/* Adds a token or gives one that is there another id. id -1: the vocabulary's, else the next free
 * one after it.  name is for texts. */
static attn_status added_put(tokenizer *t, const char *name, json_t *token, int32_t id,
                             attn_error *err)
{
    const char *content = token_text(token);
    if (!content || !*content) {
        return content ? ATTN_OK
                       : attn_fail(err, ATTN_INVALID,
                                   "token %s: neither a text nor an object with its content", name);
    }
    added_token *slot = (added_token *)added_find(t, content);
    if (slot && id < 0) {
        return ATTN_OK;
    }
    if (!slot) {
        added_token *longer = realloc(t->added, (t->added_count + 1) * sizeof *longer);
        char *copy = strdup(content);
        if (longer) {
            t->added = longer;
        }
        if (!longer || !copy) {
            free(copy);
            return attn_fail(err, ATTN_NOMEM, "no memory for token %s", content);
        }
        slot = &t->added[t->added_count++];
        *slot = (added_token){.content = copy, .bytes = strlen(copy)};
    }
    slot->id = id >= 0 ? id : bpe_token_id(t->bpe, content);
    if (slot->id < 0) {
        int32_t next = (int32_t)bpe_vocab_size(t->bpe);
        for (size_t i = 0; i < t->added_count; i++) {
            if (&t->added[i] != slot && t->added[i].id >= next) {
                next = t->added[i].id + 1;
            }
        }
        slot->id = next;
    }
    slot->single_word = json_is_true(json_object_get(token, "single_word"));
    return ATTN_OK;
}

/* A JSON object from the folder; NULL in *out where an optional file is not there. */
static attn_status config_read(const char *folder, const char *name, int optional, json_t **out,
                               attn_error *err)
{
    attn_status status = ATTN_OK;
    char *path = folder_path(folder, name);
    *out = NULL;
    if (!path) {
        return attn_fail(err, ATTN_NOMEM, "%s/%s: no memory to read it", folder, name);
    }
    if (!optional || access(path, F_OK) == 0) {
        status = json_file_read(path, out, err);
    }
    free(path);
    return status;
}

static attn_status id_check(json_int_t id, const char *name, attn_error *err)
{
    return id >= 0 && id < 1 << 24
               ? ATTN_OK
               : attn_fail(err, ATTN_INVALID, "added token %s: its id must be from 0 to 16777215",
                           name);
}

/* {"49408": {"content": ...}} of newer files. */
static attn_status decoder_add(tokenizer *t, json_t *decoder, attn_error *err)
{
    const char *key;
    json_t *token;
    json_object_foreach(decoder, key, token)
    {
        char *end = NULL;
        long long id = strtoll(key, &end, 10);
        attn_status status = id_check(*end || end == key ? -1 : id, key, err);
        if (!status) {
            status = added_put(t, key, token, (int32_t)id, err);
        }
        if (status) {
            return status;
        }
    }
    return ATTN_OK;
}

/* {"<token>": 49408} of older ones. */
static attn_status legacy_add(tokenizer *t, json_t *tokens, attn_error *err)
{
    const char *text;
    json_t *id;
    json_object_foreach(tokens, text, id)
    {
        attn_status status = id_check(json_is_integer(id) ? json_integer_value(id) : -1, text, err);
        json_t *token = status ? NULL : json_string(text);
        if (!status) {
            status = added_put(t, text, token, (int32_t)json_integer_value(id), err);
        }
        json_decref(token);
        if (status) {
            return status;
        }
    }
    return ATTN_OK;
}

static attn_status list_add(tokenizer *t, json_t *list, attn_error *err)
{
    attn_status status = ATTN_OK;
    size_t i;
    json_t *token;
    json_array_foreach(list, i, token)
    {
        if (!status) {
            status = added_put(t, "additional_special_tokens", token, -1, err);
        }
    }
    return status;
}

/* Adds each special token that the settings, with `map` merged into them, or CLIP's defaults name,
 * in transformers' order, and looks the four that matter up. */
static attn_status specials_add(tokenizer *t, token_files *f, const json_t *map, attn_error *err)
{
    int32_t *ids[SPECIALS] = {&t->start, &t->end, &t->unknown, NULL, &t->pad, NULL, NULL};
    attn_status status = ATTN_OK;
    for (int i = 0; i < SPECIALS && !status; i++) {
        json_t *token = json_incref(json_object_get(f->settings, special_names[i]));
        f->at = json_object_get(map, special_names[i]) ? map_name : settings_name;
        if (!token && special_defaults[i]) {
            token = json_string(special_defaults[i]);
        }
        if (token && !json_is_null(token)) {
            status = added_put(t, special_names[i], token, -1, err);
            const added_token *found = status ? NULL : added_find(t, token_text(token));
            if (ids[i] && found) {
                *ids[i] = found->id;
            }
        }
        json_decref(token);
    }
    for (int i = 0; i < SPECIALS && !status; i++) {
        if (ids[i] && *ids[i] < 0) {
            status = attn_fail(err, ATTN_INVALID, "%s: missing", special_names[i]);
        }
    }
    return status ? status
                  : list_add(t, json_object_get(f->settings, "additional_special_tokens"), err);
}

static attn_status max_length_read(tokenizer *t, json_t *settings, attn_error *err)
{
    json_t *length = json_object_get(settings, "model_max_length");
    t->max_length = 77;
    if (length && !json_is_null(length)) {
        double value = json_is_number(length) ? json_number_value(length) : 0;
        if (!(value >= 3 && value <= LONGEST_MODEL)) {
            return attn_fail(err, ATTN_INVALID, "model_max_length: expected from 3 to %d",
                             LONGEST_MODEL);
        }
        t->max_length = (size_t)value;
    }
    return ATTN_OK;
}

/* The map's tokens go over those of the settings, unless these list all tokens themselves. */
static attn_status files_apply(tokenizer *t, token_files *f, attn_error *err)
{
    attn_status status = ATTN_OK;
    json_t *decoder = json_object_get(f->settings, "added_tokens_decoder");
    json_t *map = decoder ? NULL : f->map;
    t->start = t->end = t->unknown = t->pad = -1;
    f->at = decoder ? settings_name : legacy_name;
    status = decoder ? decoder_add(t, decoder, err) : legacy_add(t, f->legacy, err);
    if (!status && map && json_object_update(f->settings, map)) {
        status = attn_fail(err, ATTN_NOMEM, "no memory for its tokens");
    }
    if (!status) {
        status = specials_add(t, f, map, err);
    }
    if (!status) {
        f->at = settings_name;
        status = max_length_read(t, f->settings, err);
    }
    return status;
}

attn_status tokenizer_configure(tokenizer *t, const char *folder, attn_error *err)
{
    token_files f = {0};
    ATTN_ERROR_ON(inner, 256);
    attn_status status = config_read(folder, settings_name, 0, &f.settings, err);
    if (!status) {
        status = config_read(folder, map_name, 1, &f.map, err);
    }
    if (!status && !json_object_get(f.settings, "added_tokens_decoder")) {
        status = config_read(folder, legacy_name, 1, &f.legacy, err);
    }
    if (!status) {
        status = files_apply(t, &f, &inner);
        if (status) {
            attn_fail(err, status, "%s/%s: %s", folder, f.at, inner.text);
        }
    }
    json_decref(f.legacy);
    json_decref(f.map);
    json_decref(f.settings);
    return status;
}

attn_status tokenizer_configure_clip(tokenizer *t, const char *pad, attn_error *err)
{
    token_files f = {.settings = json_pack("{s:s}", "pad_token", pad)};
    attn_status status = f.settings ? files_apply(t, &f, err)
                                    : attn_fail(err, ATTN_NOMEM, "no memory for a tokenizer");
    json_decref(f.settings);
    return status;
}
