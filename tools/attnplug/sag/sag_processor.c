/* sag_processor.c: --processor [GLOB=]NAME[+NAME][:param=value,...]. */
#include "sag.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Numbers become numbers, everything else stays a text. */
static void value_read(attn_param *param, const char *text)
{
    char *end = NULL;
    errno = 0;
    param->i = strtoll(text, &end, 10);
    if (*text && !*end && !errno) {
        param->kind = ATTN_PARAM_INT;
        param->f = (double)param->i;
        return;
    }
    param->i = 0;
    param->f = strtod(text, &end);
    if (*text && !*end) {
        param->kind = ATTN_PARAM_FLOAT;
        return;
    }
    param->f = 0;
    param->kind = ATTN_PARAM_TEXT;
    param->text = text;
}

static int params_read(struct processor_option *p, char *list, const char *whole)
{
    uint32_t count = 1;
    for (const char *c = list; *c; c++) {
        count += *c == ',';
    }
    p->params = calloc(count, sizeof *p->params);
    if (!p->params) {
        return cli_fail("out of memory");
    }
    for (char *item = list; item;) {
        char *next = strchr(item, ',');
        char *value = strchr(item, '=');
        if (next) {
            *next++ = 0;
        }
        if (!value || value == item || (next && value >= next)) {
            return cli_misuse("--processor %s: %s, expected param=value", whole, item);
        }
        *value++ = 0;
        p->params[p->n_params].name = item;
        value_read(&p->params[p->n_params++], value);
        item = next;
    }
    return 0;
}

/* Each of the names that "+" joins has to be known. */
static int names_check(const char *names, const char *whole)
{
    char one[128];
    for (const char *name = names; name;) {
        const char *plus = strchr(name, '+');
        size_t n = plus ? (size_t)(plus - name) : strlen(name);
        ATTN_ERROR_ON(err, 512);
        attn_name found = {.size = sizeof found};
        if (!n || n >= sizeof one) {
            return cli_misuse("--processor %s: expected a processor's name", whole);
        }
        memcpy(one, name, n);
        one[n] = 0;
        if (attn_name_find(one, &found, &err)) {
            return cli_misuse("--processor %s: %s", whole, err.text);
        }
        if (!found.processor) {
            return cli_misuse("--processor %s: %s is an op, which --op takes", whole, one);
        }
        name = plus ? plus + 1 : NULL;
    }
    return 0;
}

int processor_parse(struct processor_option *p, const char *text)
{
    p->text = strdup(text);
    if (!p->text) {
        return cli_fail("out of memory");
    }
    char *colon = strchr(p->text, ':');
    if (colon) {
        *colon = 0;
    }
    char *equals = strchr(p->text, '=');
    p->name = p->text;
    if (equals) {
        *equals = 0;
        p->glob = p->text;
        p->name = equals + 1;
    }
    int status = names_check(p->name, text);
    return status || !colon ? status : params_read(p, colon + 1, text);
}

void processor_free(struct processor_option *p)
{
    free(p->params);
    free(p->text);
}
