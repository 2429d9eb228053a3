/* elf_file.h: what the loader reads of an ELF file without mapping or running it.
 *
 * A stranger's file is read with pread (a map would die of SIGBUS when the file is cut short) and
 * nothing in it is believed before it is compared with the file's size and with its own segments.
 * Section headers play no part, so stripped files read alike.  Sources: System V ABI, chapters 4
 * and 5; the GNU hash table as glibc's elf/dl-lookup.c reads it.
 */
#ifndef ATTNPLUG_LOADER_ELF_FILE_H
#define ATTNPLUG_LOADER_ELF_FILE_H

#include <elf.h>
#include <stdbool.h>
#include <stdint.h>

/* A file by descriptor, or bytes in memory where `bytes` is not NULL. */
typedef struct {
    int fd;
    const unsigned char *bytes;
    uint64_t size;
} elf_source;

/* Run paths name a folder for each library where packages have one each (Nix, Spack). */
enum { ELF_MAX_SEGMENTS = 24, ELF_MAX_NEEDED = 32, ELF_TEXT = 512, ELF_RUN_PATH = 8192 };

typedef struct {
    uint64_t address, offset, file_bytes, memory_bytes;
    uint32_t flags; /* PF_R | PF_W | PF_X */
} elf_segment;

typedef struct {
    const elf_source *source;
    uint32_t verdict; /* ATTN_VERDICT_..., with `reason` where it is not OK */
    char reason[ELF_TEXT];

    elf_segment load[ELF_MAX_SEGMENTS]; /* PT_LOAD, ascending */
    uint32_t n_load;
    uint64_t dynamic, dynamic_bytes; /* address of PT_DYNAMIC; 0 bytes: none */
    bool executable_stack;           /* asked for, or not ruled out by a PT_GNU_STACK */
    bool text_relocations;

    uint64_t strings, strings_bytes; /* DT_STRTAB, DT_STRSZ */
    uint64_t symbols;                /* DT_SYMTAB */
    uint64_t hash, gnu_hash;         /* DT_HASH, DT_GNU_HASH; 0: none */
    uint32_t needed[ELF_MAX_NEEDED]; /* offsets of names in the strings */
    uint32_t n_needed;
    bool has_run_path;
    char run_path[ELF_RUN_PATH]; /* DT_RUNPATH, or DT_RPATH where there is none */

    /* What dlopen follows: see elf_links.h. */
    uint64_t relocations, relocations_bytes, plt_relocations, plt_relocations_bytes;
    uint64_t constructors, constructors_bytes, destructors, destructors_bytes;
    uint64_t n_relative; /* DT_RELACOUNT: of the first relocations */
    uint64_t packed_relocations, packed_relocations_bytes; /* DT_RELR */
    uint64_t symbol_versions, version_needs, version_definitions;
} elf_file;

/* Reads headers, segments and the dynamic table. The source outlives the file. */
bool elf_file_open(elf_file *file, const elf_source *source);

/* Sets verdict and reason; returns false. */
__attribute__((format(printf, 3, 4))) bool elf_refuse(elf_file *file, uint32_t verdict,
                                                      const char *format, ...);

/* n bytes at a file offset. False past the end or when reading fails; sets no verdict. */
bool elf_source_read(const elf_source *source, uint64_t offset, void *out, uint64_t n);

/* n bytes at an address of the image. False where they do not lie in one segment's file part. */
bool elf_read_at(const elf_file *file, uint64_t address, void *out, uint64_t n);

/* The segment that holds [address, address + n), file part or zero fill; NULL: none does. */
const elf_segment *elf_segment_at(const elf_file *file, uint64_t address, uint64_t n);

/* Whether there is such a segment. */
bool elf_contains(const elf_file *file, uint64_t address, uint64_t n);

/* The text at an offset of DT_STRTAB, NUL included; false if it is longer than capacity. */
bool elf_string(const elf_file *file, uint64_t offset, char *out, uint64_t capacity);

/* Looks a defined symbol up by name. *found false and true returned: it is not there.  False: the
 * tables contradict themselves (verdict set). */
bool elf_symbol(elf_file *file, const char *name, bool *found, Elf64_Sym *symbol);

/* How many symbols the hash tables reach. False as above. */
bool elf_symbol_count(elf_file *file, uint32_t *n);

#endif
