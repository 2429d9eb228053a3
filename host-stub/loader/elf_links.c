/* elf_links.c: checks versions and relocations before dlopen follows them. */
#include "elf_links.h"

#include "attn_host.h"
#include <stddef.h>

enum { MAX_VERSIONS = 4096, CHUNK = 64, VERSION_MASK = 0x7fff };

/* Relocations that shared objects carry. */
#if defined(__x86_64__)
enum { RELATIVE = R_X86_64_RELATIVE, INDIRECT = R_X86_64_IRELATIVE };
static const uint32_t known_types[] = {R_X86_64_NONE,      R_X86_64_64,       R_X86_64_GLOB_DAT,
                                       R_X86_64_JUMP_SLOT, R_X86_64_RELATIVE, R_X86_64_DTPMOD64,
                                       R_X86_64_DTPOFF64,  R_X86_64_TPOFF64,  R_X86_64_TLSDESC,
                                       R_X86_64_IRELATIVE};
#elif defined(__aarch64__)
enum { RELATIVE = R_AARCH64_RELATIVE, INDIRECT = R_AARCH64_IRELATIVE };
static const uint32_t known_types[] = {
    R_AARCH64_NONE,     R_AARCH64_ABS64,      R_AARCH64_GLOB_DAT,   R_AARCH64_JUMP_SLOT,
    R_AARCH64_RELATIVE, R_AARCH64_TLS_DTPMOD, R_AARCH64_TLS_DTPREL, R_AARCH64_TLS_TPREL,
    R_AARCH64_TLSDESC,  R_AARCH64_IRELATIVE};
#else
enum { RELATIVE = -1, INDIRECT = -2 };
static const uint32_t known_types[1];
#endif
enum { N_KNOWN = sizeof known_types / sizeof *known_types };

static bool refuse(elf_file *file, const char *what, uint64_t index)
{
    return elf_refuse(file, ATTN_VERDICT_BAD_ELF, "%s %llu points outside the file's own tables",
                      what, (unsigned long long)index);
}

/* The auxiliary entries of one needed library. */
static bool check_needed_versions(elf_file *file, uint64_t at, uint32_t count, uint32_t *most)
{
    for (uint32_t i = 0; i < count; i++) {
        Elf64_Vernaux v;
        if (i == MAX_VERSIONS || !elf_read_at(file, at, &v, sizeof v) ||
            v.vna_name >= file->strings_bytes || (i + 1 < count && !v.vna_next)) {
            return refuse(file, "version", i);
        }
        uint32_t index = v.vna_other & VERSION_MASK;
        *most = index > *most ? index : *most;
        at += v.vna_next;
    }
    return true;
}

/* The highest version that the file's symbols may have. */
static bool check_versions(elf_file *file, uint32_t *most)
{
    uint64_t at = file->version_needs;
    *most = 1; /* local and global */
    for (uint32_t i = 0; at && i < file->n_version_needs; i++) {
        Elf64_Verneed v;
        if (i == MAX_VERSIONS || !elf_read_at(file, at, &v, sizeof v) || v.vn_version != 1 ||
            v.vn_file >= file->strings_bytes ||
            !check_needed_versions(file, at + v.vn_aux, v.vn_cnt, most) ||
            (i + 1 < file->n_version_needs && !v.vn_next)) {
            return file->verdict ? false : refuse(file, "needed version", i);
        }
        at += v.vn_next;
    }
    at = file->version_definitions;
    for (uint32_t i = 0; at && i < file->n_version_definitions; i++) {
        Elf64_Verdef v;
        if (i == MAX_VERSIONS || !elf_read_at(file, at, &v, sizeof v) || v.vd_version != 1 ||
            !elf_contains(file, at + v.vd_aux, sizeof(Elf64_Verdaux)) ||
            (i + 1 < file->n_version_definitions && !v.vd_next)) {
            return refuse(file, "defined version", i);
        }
        uint32_t index = v.vd_ndx & VERSION_MASK;
        *most = index > *most ? index : *most;
        at += v.vd_next;
    }
    return true;
}

static bool check_symbol(elf_file *file, uint64_t index, uint32_t most_version)
{
    Elf64_Sym s;
    uint16_t version = 0;
    if (!elf_read_at(file, file->symbols + index * sizeof s, &s, sizeof s) ||
        s.st_name >= file->strings_bytes ||
        (s.st_shndx != SHN_UNDEF && s.st_shndx != SHN_ABS && ELF64_ST_TYPE(s.st_info) != STT_TLS &&
         !elf_contains(file, s.st_value, 0))) {
        return refuse(file, "symbol", index);
    }
    if (file->symbol_versions && (!elf_read_at(file, file->symbol_versions + index * sizeof version,
                                               &version, sizeof version) ||
                                  (version & VERSION_MASK) > most_version)) {
        return refuse(file, "version of symbol", index);
    }
    return true;
}

static const elf_segment *segment_at(const elf_file *file, uint64_t address, uint64_t n)
{
    for (uint32_t i = 0; i < file->n_load; i++) {
        const elf_segment *s = &file->load[i];
        if (address >= s->address && address - s->address <= s->memory_bytes &&
            n <= s->memory_bytes - (address - s->address)) {
            return s;
        }
    }
    return NULL;
}

/* Constructors and destructors are called: what is written there must be code. */
static bool is_called(const elf_file *file, uint64_t address)
{
    return (address >= file->constructors &&
            address - file->constructors < file->constructors_bytes) ||
           (address >= file->destructors && address - file->destructors < file->destructors_bytes);
}

static bool check_relocation(elf_file *file, const Elf64_Rela *r, uint64_t index,
                             uint32_t most_version)
{
    uint32_t type = (uint32_t)ELF64_R_TYPE(r->r_info);
    uint32_t symbol = (uint32_t)(r->r_info >> 32);
    const elf_segment *where = segment_at(file, r->r_offset, sizeof(uint64_t));
    bool known = N_KNOWN == 1;
    for (int i = 0; i < N_KNOWN; i++) {
        known = known || known_types[i] == type;
    }
    if (!known || !where || (!(where->flags & PF_W) && !file->text_relocations) ||
        (file->dynamic_bytes && r->r_offset >= file->dynamic &&
         r->r_offset - file->dynamic < file->dynamic_bytes)) {
        return refuse(file, "relocation", index);
    }
    if ((int64_t)type == RELATIVE || (int64_t)type == INDIRECT) {
        const elf_segment *to = segment_at(file, (uint64_t)r->r_addend, 0);
        bool code = (int64_t)type == INDIRECT || is_called(file, r->r_offset);
        return to && (!code || to->flags & PF_X) ? true : refuse(file, "relocation", index);
    }
    return symbol ? check_symbol(file, symbol, most_version) : true;
}

static bool check_relocations(elf_file *file, uint64_t at, uint64_t bytes, uint32_t most_version)
{
    Elf64_Rela chunk[CHUNK];
    uint64_t n = bytes / sizeof *chunk;
    for (uint64_t i = 0; i < n; i += CHUNK) {
        uint64_t here = n - i < CHUNK ? n - i : CHUNK;
        if (!elf_read_at(file, at + i * sizeof *chunk, chunk, here * sizeof *chunk)) {
            return refuse(file, "relocation", i);
        }
        for (uint64_t k = 0; k < here; k++) {
            if (!check_relocation(file, &chunk[k], i + k, most_version)) {
                return false;
            }
        }
    }
    return true;
}

/* Every exported symbol that a lookup may walk over: as many as the version table could name. */
static bool check_hashed(elf_file *file, uint32_t most_version)
{
    uint32_t n = 0;
    if (!elf_symbol_count(file, &n)) {
        return false;
    }
    for (uint32_t i = 1; i < n; i++) {
        if (!check_symbol(file, i, most_version)) {
            return false;
        }
    }
    return true;
}

bool elf_check_links(elf_file *file)
{
    uint32_t most_version = 0;
    return check_versions(file, &most_version) && check_hashed(file, most_version) &&
           check_relocations(file, file->relocations, file->relocations_bytes, most_version) &&
           check_relocations(file, file->plt_relocations, file->plt_relocations_bytes,
                             most_version);
}
