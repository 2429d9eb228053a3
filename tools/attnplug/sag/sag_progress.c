/* sag_progress.c: the step, a bar and the time left, rewritten in place on stderr. */
#include "sag.h"

#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void progress_begin(struct progress *p)
{
    *p = (struct progress){.shown = isatty(STDERR_FILENO), .began = now()};
}

/* Columns left for the bar beside the numbers. */
static int bar_width(void)
{
    struct winsize size;
    int columns = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : 80;
    int width = columns - 40;
    return width < 0 ? 0 : width > 40 ? 40 : width;
}

void progress_draw(struct progress *p, uint32_t done, uint32_t steps)
{
    static const char marks[] = "########################################";
    if (!p->shown) {
        return;
    }
    double each = (now() - p->began) / (done ? done : 1);
    long left = (long)(each * (steps - done) + 0.5);
    int width = bar_width();
    int full = (int)((uint64_t)done * (uint32_t)width / (steps ? steps : 1));
    fprintf(stderr, "\r\033[K step %u/%u [%.*s%*s] %.2f s/step, %ld:%02ld left", done, steps, full,
            marks, width - full, "", each, left / 60, left % 60);
    fflush(stderr);
    p->drawn = true;
}

void progress_end(struct progress *p)
{
    if (p->drawn) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
    }
    p->drawn = false;
}
