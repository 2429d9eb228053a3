/* static.c: what the file says of itself.  Nothing of the plugin runs. */
#include "check.h"
#include "elf_head.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void start(struct result *r, const char *name)
{
    memset(r, 0, sizeof *r);
    (void)snprintf(r->name, sizeof r->name, "%s", name);
    r->first = r->current = r->worst_case = -1;
    r->cases = r->taken = 1;
}

static void head_test(const elf_heads *h, struct result *r)
{
    start(r, "head");
    if (h->verdict != ATTN_VERDICT_OK)
        finding(r, "%s: %s", attn_verdict_name(h->verdict), h->reason);
    if (h->executable_stack)
        finding(r, "asks for an executable stack (link with -Wl,-z,noexecstack)");
    if (h->text_relocations)
        finding(r, "has text relocations (compile with -fPIC)");
    if (h->relative_run_path)
        finding(r, "has a relative RUNPATH: %s", h->run_path);
}

/* -- symbols
 * ------------------------------------------------------------------------------------------------
 */

/* Symbols of a GNU hash table: those below *first are imports; the table ends before *end. */
static int symbol_range(const elf_file *f, uint32_t *first, uint32_t *end)
{
    uint32_t h[4], word;
    if (!f->gnu_hash) {
        if (!f->hash || !elf_read_at(f, f->hash, h, 8))
            return -1;
        *first = *end = h[1];
        return 0;
    }
    if (!elf_read_at(f, f->gnu_hash, h, 16))
        return -1;
    uint64_t buckets = f->gnu_hash + 16 + 8 * (uint64_t)h[2];
    uint64_t chains = buckets + 4 * (uint64_t)h[0];
    uint32_t last = 0; /* the highest that a bucket begins with: its chain is the last one */
    *first = *end = h[1];
    for (uint32_t b = 0; b < h[0]; b++)
        if (elf_read_at(f, buckets + 4 * (uint64_t)b, &word, 4) && word > last)
            last = word;
    if (last < h[1])
        return 0; /* no exports */
    while (elf_read_at(f, chains + 4 * (uint64_t)(last - h[1]), &word, 4) && !(word & 1))
        last++;
    *end = last + 1;
    return 0;
}

static int symbol(const elf_file *f, uint32_t i, Elf64_Sym *s, char name[256])
{
    return elf_read_at(f, f->symbols + (uint64_t)i * sizeof *s, s, sizeof *s) &&
           elf_string(f, s->st_name, name, 256);
}

static int is_export(const Elf64_Sym *s)
{
    unsigned binding = ELF64_ST_BIND(s->st_info), visible = ELF64_ST_VISIBILITY(s->st_other);
    return s->st_shndx != SHN_UNDEF && binding != STB_LOCAL &&
           (visible == STV_DEFAULT || visible == STV_PROTECTED);
}

static void exports_test(const elf_file *f, struct result *r)
{
    static const char *const fine[] = {
        "attn_op_v1", "attn_processor_v1", "_init", "_fini", "_edata", "_end", "__bss_start"};
    uint32_t first = 0, end = 0;
    start(r, "exports");
    if (symbol_range(f, &first, &end))
        return;
    for (uint32_t i = f->gnu_hash ? first : 1; i < end; i++) {
        Elf64_Sym s;
        char name[256];
        int known = 0;
        if (!symbol(f, i, &s, name) || !is_export(&s))
            continue;
        for (size_t n = 0; n < sizeof fine / sizeof *fine; n++)
            known |= !strcmp(name, fine[n]);
        if (!known && strncmp(name, "attn_op_v", 9) != 0 &&
            strncmp(name, "attn_processor_v", 16) != 0)
            finding(
                r, "exports '%s' besides the contract's symbols (compile with -fvisibility=hidden)",
                name);
    }
}

static void imports_test(const elf_file *f, struct result *r)
{
    static const char *const refused[] = {"libattn",       "libtorch", "libc10",  "libpython",
                                          "libtensorflow", "libjax",   "libggml", "libonnxruntime"};
    static const char *const usual[] = {"libc.so",       "libm.so",  "libgcc_s.so", "ld-linux",
                                        "libpthread.so", "libdl.so", "librt.so"};
    char name[256];
    size_t used = 0;
    start(r, "imports");
    for (uint32_t n = 0; n < f->n_needed; n++) {
        int known = 0;
        if (!elf_string(f, f->needed[n], name, sizeof name))
            continue;
        for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
            if (!strncmp(name, refused[i], strlen(refused[i])))
                finding(r, "needs %s: a plugin depends on no host and no framework", name);
        for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
            known |= !strncmp(name, usual[i], strlen(usual[i]));
        if (!known && !r->failed && used < sizeof r->message)
            used += (size_t)snprintf(r->message + used, sizeof r->message - used, "%s%s",
                                     used ? ", " : "needs besides libc and libm: ", name);
    }
    uint32_t first = 0, end = 0;
    if (symbol_range(f, &first, &end))
        return;
    for (uint32_t i = 1; i < first; i++) {
        Elf64_Sym s;
        if (symbol(f, i, &s, name) && s.st_shndx == SHN_UNDEF && !strncmp(name, "attn", 4))
            finding(r, "imports '%s' from its host", name);
    }
}

/* -- the glibc that it needs
 * ------------------------------------------------------------------------------- */

static uint64_t dynamic_value(const elf_file *f, int64_t tag)
{
    Elf64_Dyn d;
    for (uint64_t at = 0; at + sizeof d <= f->dynamic_bytes; at += sizeof d)
        if (!elf_read_at(f, f->dynamic + at, &d, sizeof d) || d.d_tag == DT_NULL)
            return 0;
        else if (d.d_tag == tag)
            return d.d_un.d_val;
    return 0;
}

static void newest(const char *name, int *major, int *minor)
{
    int a = 0, b = 0;
    if (sscanf(name, "GLIBC_%d.%d", &a, &b) == 2 && (a > *major || (a == *major && b > *minor))) {
        *major = a;
        *minor = b;
    }
}

static void glibc_test(const elf_file *f, struct result *r)
{
    uint64_t at = dynamic_value(f, DT_VERNEED), files = dynamic_value(f, DT_VERNEEDNUM);
    int major = 0, minor = 0;
    start(r, "glibc");
    for (uint64_t i = 0; at && i < files && i < 64; i++) {
        Elf64_Verneed need;
        if (!elf_read_at(f, at, &need, sizeof need))
            break;
        uint64_t aux_at = at + need.vn_aux;
        for (int n = 0; n < need.vn_cnt && n < 256; n++) {
            Elf64_Vernaux aux;
            char name[64];
            if (!elf_read_at(f, aux_at, &aux, sizeof aux))
                break;
            if (elf_string(f, aux.vna_name, name, sizeof name))
                newest(name, &major, &minor);
            aux_at += aux.vna_next;
        }
        if (!need.vn_next)
            break;
        at += need.vn_next;
    }
    if (major)
        (void)snprintf(r->message, sizeof r->message, "runs from glibc %d.%d on", major, minor);
}

void static_tests(const struct check_options *o, struct heads *out, struct result *results, int *n)
{
    struct stat st;
    elf_heads heads;
    elf_file file;
    memset(out, 0, sizeof *out);
    int fd = open(o->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        start(&results[0], "head");
        finding(&results[0], "%s",
                fd < 0                ? strerror(errno)
                : S_ISDIR(st.st_mode) ? "is a folder; expected a plugin's file"
                                      : "is no regular file");
        *n = 1;
    } else {
        elf_source source = {fd, NULL, (uint64_t)st.st_size};
        elf_read_heads(&source, &heads);
        head_test(&heads, &results[0]);
        *out = (struct heads){heads.has_op, heads.has_processor, heads.op, heads.processor};
        *n = 1;
        if (elf_file_open(&file, &source)) {
            exports_test(&file, &results[(*n)++]);
            imports_test(&file, &results[(*n)++]);
            glibc_test(&file, &results[(*n)++]);
        }
    }
    if (fd >= 0)
        close(fd);
}
