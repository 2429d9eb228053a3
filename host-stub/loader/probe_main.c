/* attnplug-probe: the child of a probe.  Opens one plugin as a host would, calls what can be called
 * on a CPU with no data but its own, and reports on a descriptor.  Not for people: see probe.h. */
#include "probe.h"

#include "attn_host.h"
#include "error.h"
#include "probe_try.h"
#include "text.h"

#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* The word is asked for only now: who comes here has lived through it all. */
static void report(char letter, const char *text)
{
    char message[PROBE_WORD + 1 + PROBE_REASON];
    size_t n = strlen(text);
    n = n < PROBE_REASON ? n : PROBE_REASON;
    if (read(PROBE_FD_WORD, message, PROBE_WORD) != PROBE_WORD) {
        _exit(3);
    }
    message[PROBE_WORD] = letter;
    memcpy(message + PROBE_WORD + 1, text, n);
    if (write(PROBE_FD_RESULT, message, PROBE_WORD + 1 + n) < 0) {
        _exit(3);
    }
    close(PROBE_FD_RESULT);
}

/* A heap that was written over is found by using it: blocks of many sizes, more than lie free. */
static void stir_heap(void)
{
    enum { BLOCKS = 2048 };
    static void *blocks[BLOCKS];
    for (size_t i = 0; i < BLOCKS; i++) {
        blocks[i] = malloc(16 + i * 37 % 1024);
    }
    for (size_t i = 0; i < BLOCKS; i++) {
        free(blocks[i * 101 % BLOCKS]);
    }
}

int main(int argc, char **argv)
{
    ATTN_ERROR_ON(err, PATH_MAX + PROBE_REASON);
    const struct rlimit no_core = {0, 0}, seconds = {600, 600};
    image_source source = {.path = argc > 1 ? argv[1] : "plugin", .fd = PROBE_FD_COPY};
    image_copy copy = {.fd = PROBE_FD_COPY};
    const image *im = NULL;
    elf_heads heads;
    struct stat st;
    uint32_t verdict = 0;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)setrlimit(RLIMIT_CORE, &no_core);
    (void)setrlimit(RLIMIT_CPU, &seconds);
    if (argc != 2 || fstat(PROBE_FD_COPY, &st) != 0) {
        (void)fprintf(stderr, "attnplug-probe: only libattnplug starts this\n");
        return 2;
    }
    copy.size = (uint64_t)st.st_size;
    elf_read_heads(&(elf_source){.fd = copy.fd, .size = copy.size}, &heads);
    if (image_open(&source, &copy, &heads, &im, &verdict, &err) != ATTN_OK) {
        report(verdict == ATTN_VERDICT_UNRESOLVED ? PROBE_UNRESOLVED : PROBE_BAD,
               text_behind_path(err.text, source.path));
        return 0;
    }
    stir_heap();
    bool good = probe_try(im, &heads, &err);
    stir_heap();
    report(good ? PROBE_OK : PROBE_BROKE, good ? "" : err.text);
    return 0; /* its destructors run as they would in a host */
}
