/* sag_names.c: the names of files, and how a picture was made as text in it. */
#include "sag.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "attn_host.h"

/* One "%..." of a pattern: its letter, how many characters it takes, and its width. */
struct mark {
    char letter; /* 0: none that is known */
    int length, width;
};

static struct mark mark_read(const char *percent)
{
    struct mark m = {.length = 1};
    while (isdigit((unsigned char)percent[m.length]) && m.length < 4) {
        m.width = 10 * m.width + percent[m.length++] - '0';
    }
    m.letter = percent[m.length++];
    if (!memchr("ds%", m.letter, 3) || (m.letter != 'd' && m.width)) {
        m.letter = 0;
    }
    return m;
}

int pattern_check(const char *option, const char *pattern, bool numbered)
{
    bool found = false;
    for (const char *c = pattern; (c = strchr(c, '%'));) {
        struct mark m = mark_read(c);
        if (!m.letter) {
            return cli_misuse("--%s: %s: expected %%d, %%s or %%%% after each percent sign", option,
                              pattern);
        }
        found |= m.letter == 'd';
        c += m.length;
    }
    if (numbered && !found) {
        return cli_misuse("--%s: %s for several files, expected %%d in it for their numbers",
                          option, pattern);
    }
    return 0;
}

bool pattern_numbered(const char *pattern)
{
    bool found = false;
    for (const char *c = pattern; (c = strchr(c, '%')) && !found;) {
        struct mark m = mark_read(c);
        found = m.letter == 'd';
        c += m.length;
    }
    return found;
}

char *pattern_path(const char *pattern, uint32_t number, uint64_t seed)
{
    char *path = NULL;
    size_t bytes = 0;
    FILE *to = open_memstream(&path, &bytes);
    if (!to) {
        return NULL;
    }
    for (const char *c = pattern; *c;) {
        struct mark m = *c == '%' ? mark_read(c) : (struct mark){.length = 1};
        if (m.letter == 'd') {
            (void)fprintf(to, "%0*u", m.width, number);
        } else if (m.letter == 's') {
            (void)fprintf(to, "%llu", (unsigned long long)seed);
        } else {
            (void)fputc(*c, to);
        }
        c += m.length;
    }
    if (fclose(to) != 0) {
        free(path);
        path = NULL;
    }
    return path;
}

uint64_t picture_seed(const struct sag_arguments *a, uint32_t index)
{
    const struct sampling_options *s = &a->sampling;
    return s->seed_texts.n > 1 ? s->seeds[index] : s->seed_texts.n ? s->seeds[0] : 0;
}

/* The last part of the model's path. */
static const char *model_name(const char *folder, int *length)
{
    const char *end = folder + strlen(folder);
    while (end > folder + 1 && end[-1] == '/') {
        end--;
    }
    const char *name = end;
    while (name > folder && name[-1] != '/') {
        name--;
    }
    *length = (int)(end - name);
    return name;
}

char *parameters_text(const struct sag_arguments *a, const struct made *m, uint32_t index)
{
    const struct prompts_options *p = &a->prompts;
    const attn_tensor *latents = &m->result->latents;
    const int64_t *size = m->result->images.shape;
    uint32_t prompt = index / (uint32_t)p->per_prompt;
    const char *negative = p->negatives.n > 1    ? p->negatives.items[prompt]
                           : p->negatives.n == 1 ? p->negatives.items[0]
                                                 : "";
    char *text = NULL;
    size_t bytes = 0;
    int length = 0;
    const char *model = model_name(a->model.folder, &length);
    FILE *to = open_memstream(&text, &bytes);
    if (!to) {
        return NULL;
    }
    (void)fprintf(to, "%s%s%s\nSteps: %u, Sampler: %s, CFG scale: %g, Seed: %llu, Size: %lldx%lld",
                  p->texts.n ? p->texts.items[prompt] : "", *negative ? "\nNegative prompt: " : "",
                  negative, (unsigned)a->sampling.steps, m->sampler, a->sampling.guidance_scale,
                  (unsigned long long)picture_seed(a, index), (long long)size[2],
                  (long long)size[1]);
    (void)fprintf(to, ", Model: %.*s", length, model);
    for (size_t i = 0; i < sag_n_subjects; i++) {
        if (sag_subjects[i]->describe) {
            sag_subjects[i]->describe(a, to);
        }
    }
    if (latents->shape[0] > 1) {
        (void)fprintf(to, ", Batch index: %u", index);
    }
    (void)fprintf(to, ", Version: attnplug %s", attn_host_version());
    if (fclose(to) != 0) {
        free(text);
        text = NULL;
    }
    return text;
}
