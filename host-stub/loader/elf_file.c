/* elf_file.c: ELF header and segments, each number checked before it is used. */
#include "elf_file.h"

#include "attn_host.h"
#include "elf_dynamic.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#if defined(__x86_64__)
#define MACHINE EM_X86_64
#elif defined(__aarch64__)
#define MACHINE EM_AARCH64
#elif defined(__riscv)
#define MACHINE EM_RISCV
#elif defined(__powerpc64__)
#define MACHINE EM_PPC64
#else
#error "name this machine's ELF number here"
#endif

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define BYTE_ORDER_HERE ELFDATA2LSB
#else
#define BYTE_ORDER_HERE ELFDATA2MSB
#endif

enum { MAX_PROGRAM_HEADERS = 128 };

bool elf_refuse(elf_file *file, uint32_t verdict, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(file->reason, sizeof file->reason, format, args);
    va_end(args);
    file->verdict = verdict;
    return false;
}

bool elf_source_read(const elf_source *source, uint64_t offset, void *out, uint64_t n)
{
    if (offset > source->size || n > source->size - offset) {
        return false;
    }
    if (source->bytes) {
        memcpy(out, source->bytes + offset, n);
        return true;
    }
    for (uint64_t done = 0; done < n;) {
        ssize_t got =
            pread(source->fd, (char *)out + done, (size_t)(n - done), (off_t)(offset + done));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return false;
        }
        done += (uint64_t)got;
    }
    return true;
}

/* The segment that holds [address, address + n), counting its file part or all of it. */
static const elf_segment *segment_of(const elf_file *file, uint64_t address, uint64_t n,
                                     bool file_part)
{
    for (uint32_t i = 0; i < file->n_load; i++) {
        const elf_segment *s = &file->load[i];
        uint64_t bytes = file_part ? s->file_bytes : s->memory_bytes;
        if (address >= s->address && address - s->address <= bytes &&
            n <= bytes - (address - s->address)) {
            return s;
        }
    }
    return NULL;
}

const elf_segment *elf_segment_at(const elf_file *file, uint64_t address, uint64_t n)
{
    return segment_of(file, address, n, false);
}

bool elf_contains(const elf_file *file, uint64_t address, uint64_t n)
{
    return elf_segment_at(file, address, n) != NULL;
}

bool elf_read_at(const elf_file *file, uint64_t address, void *out, uint64_t n)
{
    const elf_segment *s = segment_of(file, address, n, true);
    return s && elf_source_read(file->source, s->offset + (address - s->address), out, n);
}

bool elf_string(const elf_file *file, uint64_t offset, char *out, uint64_t capacity)
{
    if (offset >= file->strings_bytes) {
        return false;
    }
    uint64_t n = file->strings_bytes - offset;
    if (n > capacity) {
        n = capacity;
    }
    return elf_read_at(file, file->strings + offset, out, n) && memchr(out, 0, n);
}

static bool check_identity(elf_file *file, const Elf64_Ehdr *h)
{
    if (h->e_ident[EI_CLASS] != ELFCLASS64) {
        return elf_refuse(file, ATTN_VERDICT_WRONG_ARCH, "ELF class is %u, expected 2 (64-bit)",
                          h->e_ident[EI_CLASS]);
    }
    if (h->e_ident[EI_DATA] != BYTE_ORDER_HERE) {
        return elf_refuse(file, ATTN_VERDICT_WRONG_ARCH, "ELF byte order is %u, this machine's %u",
                          h->e_ident[EI_DATA], BYTE_ORDER_HERE);
    }
    if (h->e_machine != MACHINE) {
        return elf_refuse(file, ATTN_VERDICT_WRONG_ARCH,
                          "built for ELF machine %u, this machine is %u", h->e_machine, MACHINE);
    }
    if (h->e_ident[EI_OSABI] != ELFOSABI_SYSV && h->e_ident[EI_OSABI] != ELFOSABI_GNU) {
        return elf_refuse(file, ATTN_VERDICT_WRONG_ARCH, "ELF OS ABI is %u, expected 0 or 3",
                          h->e_ident[EI_OSABI]);
    }
    if (h->e_ident[EI_VERSION] != EV_CURRENT || h->e_version != EV_CURRENT ||
        h->e_ident[EI_ABIVERSION] != 0) {
        return elf_refuse(file, ATTN_VERDICT_BAD_ELF, "ELF version is %u.%u, expected 1.0",
                          h->e_version, h->e_ident[EI_ABIVERSION]);
    }
    if (h->e_type != ET_DYN) {
        return elf_refuse(file, ATTN_VERDICT_BAD_ELF, "ELF type is %u, expected 3 (shared object)",
                          h->e_type);
    }
    return true;
}

static bool check_tables(elf_file *file, const Elf64_Ehdr *h)
{
    uint64_t size = file->source->size;
    if (h->e_phentsize != sizeof(Elf64_Phdr) || h->e_phnum == 0 ||
        h->e_phnum > MAX_PROGRAM_HEADERS) {
        return elf_refuse(file, ATTN_VERDICT_BAD_ELF,
                          "%u program headers of %u bytes, expected 1 to %d of %zu", h->e_phnum,
                          h->e_phentsize, MAX_PROGRAM_HEADERS, sizeof(Elf64_Phdr));
    }
    uint64_t bytes = (uint64_t)h->e_phnum * sizeof(Elf64_Phdr);
    if (h->e_phoff > size || bytes > size - h->e_phoff) {
        return elf_refuse(file, ATTN_VERDICT_TRUNCATED,
                          "program headers end at byte %llu, the file has %llu",
                          (unsigned long long)(h->e_phoff + bytes), (unsigned long long)size);
    }
    /* Nothing here reads sections, but a file that lost them at its end was cut. */
    uint64_t sections = (uint64_t)h->e_shnum * h->e_shentsize;
    if (h->e_shoff && (h->e_shoff > size || sections > size - h->e_shoff)) {
        return elf_refuse(file, ATTN_VERDICT_TRUNCATED,
                          "section headers end at byte %llu, the file has %llu",
                          (unsigned long long)(h->e_shoff + sections), (unsigned long long)size);
    }
    return true;
}

static bool take_load(elf_file *file, const Elf64_Phdr *p, uint32_t index)
{
    uint64_t size = file->source->size;
    if (p->p_offset > size || p->p_filesz > size - p->p_offset) {
        return elf_refuse(
            file, ATTN_VERDICT_TRUNCATED, "segment %u ends at byte %llu, the file has %llu", index,
            (unsigned long long)(p->p_offset + p->p_filesz), (unsigned long long)size);
    }
    const elf_segment *last = file->n_load ? &file->load[file->n_load - 1] : NULL;
    uint64_t end = p->p_vaddr + p->p_memsz;
    if (p->p_filesz > p->p_memsz || end < p->p_vaddr || end > UINT64_C(1) << 46 ||
        (last && p->p_vaddr < last->address + last->memory_bytes)) {
        return elf_refuse(file, ATTN_VERDICT_BAD_ELF,
                          "segment %u at 0x%llx (%llu bytes) overlaps another or has no end", index,
                          (unsigned long long)p->p_vaddr, (unsigned long long)p->p_memsz);
    }
    if (p->p_align & (p->p_align - 1) ||
        (p->p_align > 1 && (p->p_vaddr - p->p_offset) % p->p_align)) {
        return elf_refuse(file, ATTN_VERDICT_BAD_ELF, "segment %u is not aligned to its %llu bytes",
                          index, (unsigned long long)p->p_align);
    }
    if (p->p_flags & PF_W && p->p_flags & PF_X) {
        return elf_refuse(file, ATTN_VERDICT_UNTRUSTED,
                          "segment %u is both writable and executable", index);
    }
    if (file->n_load == ELF_MAX_SEGMENTS) {
        return elf_refuse(file, ATTN_VERDICT_BAD_ELF, "more than %d segments to load",
                          ELF_MAX_SEGMENTS);
    }
    file->load[file->n_load++] =
        (elf_segment){p->p_vaddr, p->p_offset, p->p_filesz, p->p_memsz, p->p_flags};
    return true;
}

static bool take_segment(elf_file *file, const Elf64_Phdr *p, uint32_t index)
{
    switch (p->p_type) {
    case PT_LOAD:
        return take_load(file, p, index);
    case PT_DYNAMIC:
        file->dynamic = p->p_vaddr;
        file->dynamic_bytes = p->p_memsz;
        return true;
    case PT_GNU_STACK:
        file->executable_stack = (p->p_flags & PF_X) != 0;
        return true;
    case PT_INTERP:
        return elf_refuse(file, ATTN_VERDICT_BAD_ELF, "it is a program, not a shared object");
    default:
        return true;
    }
}

/* PT_GNU_RELRO may end with the page in which its segment ends (lld rounds it up): whole pages are
 * protected, and what is left of the last one belongs to nobody. */
static bool relro_fits(const elf_file *file, const Elf64_Phdr *p)
{
    const elf_segment *s = elf_segment_at(file, p->p_vaddr, 0);
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), end = p->p_vaddr + p->p_memsz;
    return s && end >= p->p_vaddr && end / page * page <= s->address + s->memory_bytes + page - 1;
}

/* What the dynamic linker reads or protects at its address must lie inside a segment. */
static bool check_inside(elf_file *file, const Elf64_Phdr *p, uint32_t index)
{
    bool is_tls = p->p_type == PT_TLS;
    bool matters =
        is_tls || p->p_type == PT_DYNAMIC || p->p_type == PT_NOTE || p->p_type == PT_GNU_PROPERTY;
    bool fits = p->p_type == PT_GNU_RELRO
                    ? relro_fits(file, p)
                    : !matters || elf_contains(file, p->p_vaddr, is_tls ? p->p_filesz : p->p_memsz);
    if (!fits) {
        return elf_refuse(file, ATTN_VERDICT_BAD_ELF,
                          "segment %u (type 0x%x) lies outside what is loaded", index, p->p_type);
    }
    if (is_tls && (p->p_filesz > p->p_memsz || p->p_align & (p->p_align - 1))) {
        return elf_refuse(file, ATTN_VERDICT_BAD_ELF,
                          "segment %u (thread-local): %llu bytes of %llu are in the file, aligned "
                          "to %llu",
                          index, (unsigned long long)p->p_filesz, (unsigned long long)p->p_memsz,
                          (unsigned long long)p->p_align);
    }
    return true;
}

static bool read_segments(elf_file *file, const Elf64_Ehdr *h)
{
    Elf64_Phdr table[MAX_PROGRAM_HEADERS];
    if (!elf_source_read(file->source, h->e_phoff, table, h->e_phnum * sizeof *table)) {
        return elf_refuse(file, ATTN_VERDICT_BAD_FILE, "its program headers cannot be read");
    }
    for (uint32_t i = 0; i < h->e_phnum; i++) {
        if (!take_segment(file, &table[i], i)) {
            return false;
        }
    }
    for (uint32_t i = 0; i < h->e_phnum; i++) {
        if (!check_inside(file, &table[i], i)) {
            return false;
        }
    }
    return true;
}

bool elf_file_open(elf_file *file, const elf_source *source)
{
    *file = (elf_file){.source = source, .executable_stack = true};
    Elf64_Ehdr h = {0};
    uint64_t n = source->size < sizeof h ? source->size : sizeof h;
    if (!elf_source_read(source, 0, &h, n)) {
        return elf_refuse(file, ATTN_VERDICT_BAD_FILE, "its first %llu bytes cannot be read",
                          (unsigned long long)n);
    }
    if (n < SELFMAG || memcmp(h.e_ident, ELFMAG, SELFMAG) != 0) {
        return elf_refuse(file, ATTN_VERDICT_NOT_ELF, n ? "not an ELF file" : "the file is empty");
    }
    if (n < sizeof h) {
        return elf_refuse(file, ATTN_VERDICT_TRUNCATED,
                          "the ELF header has %zu bytes, the file %llu", sizeof h,
                          (unsigned long long)n);
    }
    return check_identity(file, &h) && check_tables(file, &h) && read_segments(file, &h) &&
           elf_read_dynamic(file);
}
