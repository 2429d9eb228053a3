#include "surroundings.h"

#include <dirent.h>
#include <fenv.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>

static int entries(const char *folder)
{
    int n = 0;
    DIR *d = opendir(folder);
    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}

void surroundings_look(struct surroundings *s)
{
    memset(s, 0, sizeof *s);
    s->threads = entries("/proc/self/task");
    s->files = entries("/proc/self/fd");
    s->rounding = fegetround();
#if defined(__SSE2__)
    s->mode = __builtin_ia32_stmxcsr() & ~0x3Fu; /* MXCSR, less the sticky exception bits */
#elif defined(__aarch64__)
    uint64_t fpcr;
    __asm__("mrs %0, fpcr" : "=r"(fpcr));
    s->mode = (unsigned)fpcr;
#endif
    (void)snprintf(s->locale, sizeof s->locale, "%s", setlocale(LC_ALL, NULL));
    for (int n = 1; n < 32; n++)
        sigaction(n, NULL, &s->signals[n]);
}

void surroundings_compare(const struct surroundings *a, const struct surroundings *b,
                          struct result *r)
{
    if (b->threads != a->threads)
        finding(r, "%d threads are left", b->threads - a->threads);
    if (b->files != a->files)
        finding(r, "%d open files are left", b->files - a->files);
    if (b->rounding != a->rounding || b->mode != a->mode)
        finding(r, "the floating-point mode changed (control word %04x, was %04x)", b->mode,
                a->mode);
    if (strcmp(b->locale, a->locale) != 0)
        finding(r, "the locale changed to %s", b->locale);
    for (int n = 1; n < 32; n++)
        if (b->signals[n].sa_handler != a->signals[n].sa_handler)
            finding(r, "the handler of signal %d (%s) changed", n, strsignal(n));
}
