#include "json_file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "attn_host.h"

attn_status json_file_read(const char *path, json_t **out, attn_error *err)
{
    json_error_t json;
    struct stat info;
    *out = NULL;
    FILE *file = fopen(path, "rb");
    if (!file) {
        return attn_fail(err, errno == ENOENT ? ATTN_NOT_FOUND : ATTN_IO, "%s: %s", path,
                         strerror(errno));
    }
    if (fstat(fileno(file), &info) == 0 && S_ISDIR(info.st_mode)) {
        fclose(file);
        return attn_fail(err, ATTN_INVALID, "%s: is a folder, expected a JSON file", path);
    }
    json_t *value = json_loadf(file, JSON_REJECT_DUPLICATES, &json);
    fclose(file);
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
