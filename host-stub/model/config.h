/* config.h: a model's config.json, read with types.
 *
 * The first failure sticks: getters after it return their fallback, and config_done tells what
 * happened.  Every text names the file, the key, the value and what was expected.  A key that is
 * absent or null counts as not set, as in diffusers.
 */
#ifndef ATTNPLUG_MODEL_CONFIG_H
#define ATTNPLUG_MODEL_CONFIG_H

#include "error.h"
#include "model_source.h"

#include <jansson.h>
#include <stddef.h>

struct config;

/* Reads folder/config.json.  err is written to until config_done. */
attn_status config_open(const char *folder, struct config **out, attn_error *err);
/* The folder's, or what a checkpoint's shapes say in its place; texts then name the checkpoint. */
attn_status config_open_source(const struct model_source *source, struct config **out,
                               attn_error *err);
/* Of a JSON object that somebody else read (borrowed); path is for texts. */
attn_status config_open_json(json_t *root, const char *path, struct config **out, attn_error *err);
void config_close(struct config *c); /* NULL does nothing; texts handed out die */

int64_t config_int(struct config *c, const char *key, int64_t fallback, int64_t low, int64_t high);
double config_float(struct config *c, const char *key, double fallback);
int32_t config_bool(struct config *c, const char *key, int32_t fallback);
/* fallback NULL: the key has to be set. */
const char *config_text(struct config *c, const char *key, const char *fallback);

/* A list of 1 to `capacity` numbers; returns how many, 0 after a failure. */
uint32_t config_ints(struct config *c, const char *key, int64_t low, int64_t high,
                     uint32_t capacity, int64_t *out);
/* One number for all, or a list of exactly n. */
void config_ints_each(struct config *c, const char *key, int64_t fallback, int64_t low,
                      int64_t high, uint32_t n, int64_t *out);
/* One flag for all, or a list of exactly n. */
void config_bools_each(struct config *c, const char *key, int32_t fallback, uint32_t n,
                       int32_t *out);
/* One number for all, or a list of exactly n; where the key is not set, out stays as it is. */
void config_floats_each(struct config *c, const char *key, uint32_t n, double *out);
/* The value itself, borrowed; NULL where it is not set. */
const json_t *config_value(struct config *c, const char *key);
/* Item `index` of a list of texts; fails when the list has not exactly n. */
const char *config_text_at(struct config *c, const char *key, uint32_t n, uint32_t index);

/* The only value that is supported, as JSON ("null", "false", "\"default\"", "1.0").  Not set
 * passes too. */
void config_only(struct config *c, const char *key, const char *json);
/* A failure of the caller's finding: "<file>: <key> is <value>, expected <expected>". */
void config_refuse(struct config *c, attn_status status, const char *key, const char *expected);

/* The first failure.  With strict, an option that no getter asked for is one too if it is set to
 * anything but null, false or an empty list; keys that begin with "_" and those in `ignored` (ends
 * with NULL; may be NULL) are not looked at. */
attn_status config_done(struct config *c, int32_t strict, const char *const *ignored);

#endif
