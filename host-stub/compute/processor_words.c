#include "processor_words.h"

#include <errno.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

/* Numbers have a point, whatever language the host has chosen. */
static double number_read(const char *text, char **end)
{
    locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    double number = plain ? strtod_l(text, end, plain) : strtod(text, end);
    if (plain)
        freelocale(plain);
    return number;
}

/* A value's kind and number. */
static void value_read(attn_param *p, const char *text)
{
    char *end = NULL;
    errno = 0;
    long long whole = strtoll(text, &end, 10);
    if (*text && !*end && errno == 0) {
        p->kind = ATTN_PARAM_INT;
        p->i = whole;
        return;
    }
    double number = number_read(text, &end);
    if (*text && !*end) {
        p->kind = ATTN_PARAM_FLOAT;
        p->f = number;
    } else if (strcmp(text, "true") == 0 || strcmp(text, "True") == 0) {
        p->kind = ATTN_PARAM_INT;
        p->i = 1;
    } else if (strcmp(text, "false") == 0 || strcmp(text, "False") == 0) {
        p->kind = ATTN_PARAM_INT;
    } else {
        p->kind = ATTN_PARAM_TEXT;
        p->text = text;
    }
}

/* Splits "name=value,..." in place. */
static attn_status params_read(struct processor_words *w, char *list, attn_error *err)
{
    size_t room = 1;
    for (const char *c = list; *c; c++)
        room += *c == ',';
    w->params = calloc(room, sizeof *w->params);
    if (!w->params)
        return attn_fail(err, ATTN_NOMEM, "no memory for a processor's parameters");
    w->spec.params = w->params;
    for (char *rest = list; rest;) {
        char *word = strsep(&rest, ",");
        char *value = strchr(word, '=');
        if (!value || value == word)
            return attn_fail(err, ATTN_INVALID, "\"%s\" is not of the form name=value", word);
        *value++ = '\0';
        if (!*value)
            return attn_fail(err, ATTN_INVALID, "parameter \"%s\" has no value", word);
        if (strcmp(value, "None") == 0)
            continue;
        attn_param *p = &w->params[w->spec.n_params++];
        p->name = word;
        value_read(p, value);
    }
    return ATTN_OK;
}

attn_status processor_words_parse(const char *words, struct processor_words *out, attn_error *err)
{
    *out = (struct processor_words){.spec = {.size = sizeof out->spec}};
    out->text = strdup(words);
    if (!out->text)
        return attn_fail(err, ATTN_NOMEM, "no memory for a processor's name");
    char *list = strchr(out->text, ':');
    attn_status status = ATTN_OK;
    if (list)
        *list++ = '\0';
    out->spec.processor = out->text;
    if (!*out->text)
        status = attn_fail(err, ATTN_INVALID, "\"%s\" names no processor", words);
    if (status == ATTN_OK && list)
        status = params_read(out, list, err);
    if (status != ATTN_OK)
        processor_words_clear(out);
    return status;
}

attn_status processor_params_parse(const char *list, struct processor_words *out, attn_error *err)
{
    *out = (struct processor_words){.spec = {.size = sizeof out->spec}};
    out->text = strdup(list);
    attn_status status = out->text ? params_read(out, out->text, err)
                                   : attn_fail(err, ATTN_NOMEM, "no memory for parameters");
    if (status != ATTN_OK)
        processor_words_clear(out);
    return status;
}

void processor_words_clear(struct processor_words *words)
{
    free(words->params);
    free(words->text);
    *words = (struct processor_words){0};
}
