#include "json_file.h"

#include <stdlib.h>

#include "attn_host.h"
#include "file_bytes.h"

/* Vocabularies and indices of large models take some megabytes. */
enum { MOST_BYTES = 256 << 20 };

attn_status json_file_read(const char *path, json_t **out, attn_error *err)
{
    json_error_t json;
    uint8_t *text = NULL;
    size_t n = 0;
    *out = NULL;
    attn_status status = file_bytes_read(path, MOST_BYTES, "a JSON file", &text, &n, err);
    if (status != ATTN_OK) {
        return status;
    }
    json_t *value = json_loadb((const char *)text, n, JSON_REJECT_DUPLICATES, &json);
    free(text);
    if (!value) {
        return attn_fail(err, ATTN_INVALID, "%s: line %d: %s", path, json.line, json.text);
    }
    if (!json_is_object(value)) {
        json_decref(value);
        return attn_fail(err, ATTN_INVALID, "%s: must be a JSON object", path);
    }
    *out = value;
    return ATTN_OK;
}
