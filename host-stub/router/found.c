/* found.c: the plugins that a registry found, by their ids and by the last parts of those. */
#include "names.h"

#include "error.h"
#include "opened.h"
#include "text.h"

#include <string.h>

#define TERMS "lora+"

static const char *last_part(const char *id)
{
    const char *dot = strrchr(id, '.');
    return dot ? dot + 1 : id;
}

/* What a file has under a text: a whole id, or an id's last part.  The op and the processor of one
 * file may have the same id. */
typedef struct {
    const attn_head *op, *processor;
} heads;

static heads match(const attn_file_info *info, const char *text, uint32_t kinds, bool whole)
{
    const attn_head *both[2] = {kinds & ATTN_NAME_OPS ? info->op : NULL,
                                kinds & ATTN_NAME_PROCESSORS ? info->processor : NULL};
    for (int i = 0; i < 2; i++) {
        const char *name = !both[i] ? NULL : whole ? both[i]->id : last_part(both[i]->id);
        both[i] = name && strcmp(name, text) == 0 ? both[i] : NULL;
    }
    return (heads){both[0], both[1]};
}

/* Heads live as long as the registry, so a name may point into them. */
static void name_set(attn_name *name, const heads *h)
{
    const attn_head *head = h->op ? h->op : h->processor;
    *name = (attn_name){.size = sizeof *name,
                        .name = head->id,
                        .processor = h->processor ? h->processor->id : NULL,
                        .op = h->op ? h->op->id : "auto",
                        .note = head->summary};
}

static attn_status wrong_kind(const attn_file_info *info, const char *id, uint32_t kinds,
                              attn_error *err)
{
    heads any = match(info, id, ATTN_NAME_OPS | ATTN_NAME_PROCESSORS, true);
    if (!any.op && !any.processor) {
        return ATTN_OK;
    }
    return attn_fail(err, ATTN_INVALID, "%s is %s (%s)", id,
                     kinds == ATTN_NAME_OPS ? "a processor, not an op" : "an op, not a processor",
                     info->path);
}

/* The first usable file that has the id; else why there is none. */
static attn_status find_id(attn_registry *registry, const char *id, uint32_t kinds, attn_name *name,
                           attn_error *err)
{
    attn_file_info info = {.size = sizeof info};
    ATTN_ERROR_ON(why, 1024);
    attn_status status = ATTN_OK;
    for (uint32_t i = 0; attn_registry_file(registry, i, &info) == ATTN_OK; i++) {
        heads h = match(&info, id, kinds, true);
        if (info.verdict == ATTN_VERDICT_DUPLICATE) {
            continue;
        }
        if ((h.op || h.processor) && info.verdict == ATTN_VERDICT_OK) {
            name_set(name, &h);
            return ATTN_OK;
        }
        if ((h.op || h.processor) && !status) {
            status = attn_fail(&why, ATTN_NOT_FOUND, "%s (%s) was refused: %s: %s", info.path, id,
                               attn_verdict_name(info.verdict), info.reason);
        } else if (!status) {
            status = wrong_kind(&info, id, kinds, &why);
        }
    }
    if (status) {
        return attn_fail(err, status, "%s", why.text);
    }
    char places[1024];
    registry_places(registry, places, sizeof places);
    return attn_fail(err, ATTN_NOT_FOUND, "no plugin has the id \"%s\"; looked in: %s", id, places);
}

/* The one id that ends in ".text".  NOT_FOUND: none, INVALID: several, with them all in err. */
static attn_status find_last_part(attn_registry *registry, const char *text, uint32_t kinds,
                                  attn_name *name, attn_error *err)
{
    attn_file_info info = {.size = sizeof info};
    char ids[512] = "";
    uint32_t found = 0;
    for (uint32_t i = 0; attn_registry_file(registry, i, &info) == ATTN_OK; i++) {
        heads h = match(&info, text, kinds, false);
        if (info.verdict != ATTN_VERDICT_OK || (!h.op && !h.processor)) {
            continue;
        }
        name_set(name, &h);
        text_append(ids, sizeof ids, found++ ? ", " : "");
        text_append(ids, sizeof ids, name->name);
    }
    if (found > 1) {
        return attn_fail(err, ATTN_INVALID, "\"%s\" is the last part of several ids: %s", text,
                         ids);
    }
    return found ? ATTN_OK : ATTN_NOT_FOUND;
}

static attn_status find_found(attn_registry *registry, const char *text, uint32_t kinds,
                              attn_name *name, attn_error *err)
{
    return strchr(text, '.') ? find_id(registry, text, kinds, name, err)
                             : find_last_part(registry, text, kinds, name, err);
}

attn_status attn_name_find_in(attn_registry *registry, const char *text, uint32_t kinds,
                              attn_name *name, attn_error *err)
{
    ATTN_ERROR_ON(unknown, 512);
    const uint32_t both = ATTN_NAME_OPS | ATTN_NAME_PROCESSORS;
    attn_status status = attn_name_find(text, name, &unknown);
    if (status != ATTN_NOT_FOUND) {
        return status ? attn_fail(err, status, "%s", unknown.text) : ATTN_OK;
    }
    const bool terms = strncmp(text, TERMS, sizeof TERMS - 1) == 0;
    kinds = terms ? ATTN_NAME_PROCESSORS : kinds ? kinds : both;
    ATTN_ERROR_ON(why, 1280);
    status = find_found(registry, terms ? text + sizeof TERMS - 1 : text, kinds, name, &why);
    if (status) {
        return attn_fail(err, status, "%s", why.text[0] ? why.text : unknown.text);
    }
    name->flags |= terms ? ATTN_NAME_TERMS : 0;
    return ATTN_OK;
}

attn_status attn_op_id_in(attn_registry *registry, const char *op, const char *runtime, char id[64],
                          attn_error *err)
{
    ATTN_ERROR_ON(unknown, 512);
    ATTN_ERROR_ON(why, 1280);
    attn_name name = {.size = sizeof name};
    attn_status status = attn_op_id(op, runtime, id, &unknown);
    if (status == ATTN_NOT_FOUND && op) {
        status = find_last_part(registry, op, ATTN_NAME_OPS, &name, &why);
    }
    if (status) {
        return attn_fail(err, status, "%s", why.text[0] ? why.text : unknown.text);
    }
    if (name.op) {
        (void)snprintf(id, 64, "%s", name.op);
    }
    return ATTN_OK;
}
