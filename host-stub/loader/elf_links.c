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

/* These tables are walked as the dynamic linker walks them: by links, whatever their counts say. */

/* The auxiliary entries of one needed library. */
static bool check_needed_versions(elf_file *file, uint64_t at, uint32_t *most)
{
    Elf64_Vernaux v = {.vna_next = 1};
    for (uint32_t i = 0; v.vna_next; i++) {
        if (i == MAX_VERSIONS || !elf_read_at(file, at, &v, sizeof v) ||
            v.vna_name >= file->strings_bytes) {
            return refuse(file, "version", i);
        }
        uint32_t index = v.vna_other & VERSION_MASK;
        *most = index > *most ? index : *most;
        at += v.vna_next;
    }
    return true;
}

static bool check_needs(elf_file *file, uint32_t *most)
{
    uint64_t at = file->version_needs;
    Elf64_Verneed v = {.vn_next = 1};
    for (uint32_t i = 0; at && v.vn_next; i++) {
        if (i == MAX_VERSIONS || !elf_read_at(file, at, &v, sizeof v) || v.vn_version != 1 ||
            v.vn_file >= file->strings_bytes) {
            return refuse(file, "needed version", i);
        }
        if (!check_needed_versions(file, at + v.vn_aux, most)) {
            return false;
        }
        at += v.vn_next;
    }
    return true;
}

static bool check_definitions(elf_file *file, uint32_t *most)
{
    uint64_t at = file->version_definitions;
    Elf64_Verdef v = {.vd_next = 1};
    for (uint32_t i = 0; at && v.vd_next; i++) {
        if (i == MAX_VERSIONS || !elf_read_at(file, at, &v, sizeof v) || v.vd_version != 1 ||
            !elf_contains(file, at + v.vd_aux, sizeof(Elf64_Verdaux))) {
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

/* Constructors and destructors are called: what is written there must be code. */
static bool is_called(const elf_file *file, uint64_t address)
{
    return (address >= file->constructors &&
            address - file->constructors < file->constructors_bytes) ||
           (address >= file->destructors && address - file->destructors < file->destructors_bytes);
}

/* Where a relocation may write. */
static bool is_patchable(const elf_file *file, uint64_t address)
{
    const elf_segment *where = elf_segment_at(file, address, sizeof(uint64_t));
    bool in_dynamic = file->dynamic_bytes && address >= file->dynamic &&
                      address - file->dynamic < file->dynamic_bytes;
    return where && (where->flags & PF_W || file->text_relocations) && !in_dynamic;
}

/* What a relative relocation may leave at an address: a place in the image, code where it is
 * called. */
static bool is_target(const elf_file *file, uint64_t target, bool is_code)
{
    const elf_segment *to = elf_segment_at(file, target, 0);
    return to && (!is_code || to->flags & PF_X);
}

static bool check_relocation(elf_file *file, const Elf64_Rela *r, uint64_t index,
                             uint32_t most_version)
{
    uint32_t type = (uint32_t)ELF64_R_TYPE(r->r_info);
    uint32_t symbol = (uint32_t)(r->r_info >> 32);
    bool known = N_KNOWN == 1;
    for (int i = 0; i < N_KNOWN; i++) {
        known = known || known_types[i] == type;
    }
    if (!known || !is_patchable(file, r->r_offset)) {
        return refuse(file, "relocation", index);
    }
    if ((int64_t)type == RELATIVE || (int64_t)type == INDIRECT) {
        bool code = (int64_t)type == INDIRECT || is_called(file, r->r_offset);
        return is_target(file, (uint64_t)r->r_addend, code) ? true
                                                            : refuse(file, "relocation", index);
    }
    return symbol ? check_symbol(file, symbol, most_version) : true;
}

/* Those that DT_RELACOUNT speaks of are taken for relative ones unread. */
static bool check_relative(elf_file *file)
{
    uint64_t n = file->relocations_bytes / sizeof(Elf64_Rela);
    for (uint64_t i = 0; N_KNOWN > 1 && i < n && i < file->n_relative; i++) {
        Elf64_Rela r;
        if (!elf_read_at(file, file->relocations + i * sizeof r, &r, sizeof r) ||
            (int64_t)ELF64_R_TYPE(r.r_info) != RELATIVE) {
            return elf_refuse(file, ATTN_VERDICT_BAD_ELF,
                              "relocation %llu is not relative, as the first %llu are said to be",
                              (unsigned long long)i, (unsigned long long)file->n_relative);
        }
    }
    return true;
}

/* One of the packed relocations: what stands at the address is moved with the image. */
static bool check_packed_one(elf_file *file, uint64_t address, uint64_t entry)
{
    uint64_t target = 0;
    if (!is_patchable(file, address) || !elf_read_at(file, address, &target, sizeof target) ||
        !is_target(file, target, is_called(file, address))) {
        return refuse(file, "packed relocation", entry);
    }
    return true;
}

/* DT_RELR: an even entry is an address; an odd one has a bit for each of the 63 words after the
 * last (System V ABI, chapter 5, "Relative relocation table"). */
static bool check_packed(elf_file *file)
{
    enum { WORDS = 63 };
    uint64_t n = file->packed_relocations_bytes / sizeof(Elf64_Relr), next = 0;
    for (uint64_t i = 0; i < n; i++) {
        Elf64_Relr entry = 0;
        if (!elf_read_at(file, file->packed_relocations + i * sizeof entry, &entry, sizeof entry) ||
            (!next && entry & 1)) {
            return refuse(file, "packed relocation", i);
        }
        uint64_t words = entry & 1 ? entry >> 1 : 1, first = entry & 1 ? next : entry;
        for (int k = 0; words >> k; k++) {
            if (words >> k & 1 && !check_packed_one(file, first + (uint64_t)k * 8, i)) {
                return false;
            }
        }
        next = first + (entry & 1 ? WORDS : 1) * sizeof(uint64_t);
    }
    return true;
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
    uint32_t most_version = 1; /* local and global */
    return check_needs(file, &most_version) && check_definitions(file, &most_version) &&
           check_hashed(file, most_version) && check_relative(file) && check_packed(file) &&
           check_relocations(file, file->relocations, file->relocations_bytes, most_version) &&
           check_relocations(file, file->plt_relocations, file->plt_relocations_bytes,
                             most_version);
}
