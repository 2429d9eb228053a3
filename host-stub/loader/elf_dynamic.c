/* elf_dynamic.c: reads PT_DYNAMIC and checks that each table it names lies inside the image, since
 * the dynamic linker checks none of them. */
#include "elf_dynamic.h"

#include "attn_host.h"

#include <stddef.h>

enum { MAX_ENTRIES = 512, CHUNK = 32, KEPT_TAGS = 40 };

/* The entries that are looked at, by tag; the last of a tag counts, as for the dynamic linker. */
typedef struct {
    uint64_t value[KEPT_TAGS];
    bool present[KEPT_TAGS];
    uint64_t gnu_hash, flags_1, n_relative;
    uint64_t versym, verneed, verdef;
} entries;

/* Tags that lie far from the others. */
static uint64_t *entry_far(entries *e, int64_t tag)
{
    switch (tag) {
    case DT_GNU_HASH:
        return &e->gnu_hash;
    case DT_FLAGS_1:
        return &e->flags_1;
    case DT_VERSYM:
        return &e->versym;
    case DT_VERNEED:
        return &e->verneed;
    case DT_VERDEF:
        return &e->verdef;
    case DT_RELACOUNT:
        return &e->n_relative;
    default:
        return NULL;
    }
}

static void entry_take(elf_file *file, entries *e, const Elf64_Dyn *d)
{
    if (d->d_tag == DT_NEEDED) {
        if (file->n_needed < ELF_MAX_NEEDED) {
            file->needed[file->n_needed] = (uint32_t)d->d_un.d_val;
        }
        file->n_needed++;
    } else if (entry_far(e, d->d_tag)) {
        *entry_far(e, d->d_tag) = d->d_un.d_val;
    } else if (d->d_tag >= 0 && d->d_tag < KEPT_TAGS) {
        e->value[d->d_tag] = d->d_un.d_val;
        e->present[d->d_tag] = true;
    }
}

static bool read_entries(elf_file *file, entries *e)
{
    uint64_t n = file->dynamic_bytes / sizeof(Elf64_Dyn);
    if (n > MAX_ENTRIES) {
        return elf_refuse(file, ATTN_VERDICT_BAD_ELF, "%llu dynamic entries, expected at most %d",
                          (unsigned long long)n, MAX_ENTRIES);
    }
    Elf64_Dyn chunk[CHUNK];
    for (uint64_t i = 0; i < n; i += CHUNK) {
        uint64_t here = n - i < CHUNK ? n - i : CHUNK;
        if (!elf_read_at(file, file->dynamic + i * sizeof *chunk, chunk, here * sizeof *chunk)) {
            return elf_refuse(file, ATTN_VERDICT_BAD_ELF,
                              "the dynamic table lies outside the file");
        }
        for (uint64_t k = 0; k < here; k++) {
            if (chunk[k].d_tag == DT_NULL) {
                return true;
            }
            entry_take(file, e, &chunk[k]);
        }
    }
    return elf_refuse(file, ATTN_VERDICT_BAD_ELF, "the dynamic table has no end");
}

/* A table named by an address and a size in bytes, with entries of a known size. */
typedef struct {
    const char *name;
    int address, bytes, entry_tag;
    uint64_t entry;
} table;

static bool check_table(elf_file *file, const entries *e, const table *t)
{
    if (!e->present[t->address] && !e->present[t->bytes]) {
        return true;
    }
    if (!e->present[t->address] || !e->present[t->bytes]) {
        return elf_refuse(file, ATTN_VERDICT_BAD_ELF, "%s: no %s in the dynamic table", t->name,
                          e->present[t->address] ? "size" : "address");
    }
    uint64_t bytes = e->value[t->bytes];
    if (!elf_contains(file, e->value[t->address], bytes) || bytes % t->entry ||
        e->value[t->address] % (t->entry < 8 ? 1 : 8)) {
        return elf_refuse(file, ATTN_VERDICT_BAD_ELF,
                          "%s: %llu bytes at 0x%llx are not inside the image", t->name,
                          (unsigned long long)bytes, (unsigned long long)e->value[t->address]);
    }
    if (t->entry_tag >= 0 && e->value[t->entry_tag] != t->entry) {
        return elf_refuse(file, ATTN_VERDICT_BAD_ELF, "%s: entries of %llu bytes, expected %llu",
                          t->name, (unsigned long long)e->value[t->entry_tag],
                          (unsigned long long)t->entry);
    }
    return true;
}

static bool check_tables(elf_file *file, const entries *e)
{
    static const table tables[] = {
        {"relocations", DT_RELA, DT_RELASZ, DT_RELAENT, sizeof(Elf64_Rela)},
        {"PLT relocations", DT_JMPREL, DT_PLTRELSZ, -1, sizeof(Elf64_Rela)},
        {"packed relocations", DT_RELR, DT_RELRSZ, DT_RELRENT, sizeof(Elf64_Relr)},
        {"constructors", DT_INIT_ARRAY, DT_INIT_ARRAYSZ, -1, 8},
        {"destructors", DT_FINI_ARRAY, DT_FINI_ARRAYSZ, -1, 8},
        {"strings", DT_STRTAB, DT_STRSZ, -1, 1},
    };
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        if (!check_table(file, e, &tables[i])) {
            return false;
        }
    }
    static const int code[] = {DT_INIT, DT_FINI};
    for (size_t i = 0; i < sizeof code / sizeof *code; i++) {
        const elf_segment *s = elf_segment_at(file, e->value[code[i]], 1);
        if (e->present[code[i]] && !(s && s->flags & PF_X)) {
            return elf_refuse(file, ATTN_VERDICT_BAD_ELF, "%s is not code of the image",
                              code[i] == DT_INIT ? "DT_INIT" : "DT_FINI");
        }
    }
    return true;
}

/* Entries of which the dynamic linker takes one for granted where it finds the other, or ends the
 * process where they disagree. */
static bool check_pairs(elf_file *file, const entries *e)
{
    bool plt = e->present[DT_JMPREL];
    if (plt != e->present[DT_PLTREL] || (plt && e->value[DT_PLTREL] != DT_RELA)) {
        return elf_refuse(file, ATTN_VERDICT_BAD_ELF,
                          "PLT relocations are of kind %llu, expected %d (DT_RELA)",
                          (unsigned long long)e->value[DT_PLTREL], DT_RELA);
    }
    if (!e->versym != !(e->verneed || e->verdef)) {
        return elf_refuse(file, ATTN_VERDICT_BAD_ELF,
                          "versions of symbols and the tables that name them: one without the "
                          "other");
    }
    return true;
}

static bool take_run_path(elf_file *file, const entries *e)
{
    int tag = e->present[DT_RUNPATH] ? DT_RUNPATH : DT_RPATH;
    if (!e->present[tag]) {
        return true;
    }
    file->has_run_path = true;
    if (!elf_string(file, e->value[tag], file->run_path, sizeof file->run_path)) {
        return elf_refuse(file, ATTN_VERDICT_BAD_ELF,
                          "its run path is not a text of under %d bytes", ELF_RUN_PATH);
    }
    return true;
}

static void take_links(elf_file *file, const entries *e)
{
    file->relocations = e->value[DT_RELA];
    file->relocations_bytes = e->value[DT_RELASZ];
    file->plt_relocations = e->value[DT_JMPREL];
    file->plt_relocations_bytes = e->value[DT_PLTRELSZ];
    file->constructors = e->value[DT_INIT_ARRAY];
    file->constructors_bytes = e->value[DT_INIT_ARRAYSZ];
    file->destructors = e->value[DT_FINI_ARRAY];
    file->destructors_bytes = e->value[DT_FINI_ARRAYSZ];
    file->n_relative = e->n_relative;
    file->packed_relocations = e->value[DT_RELR];
    file->packed_relocations_bytes = e->value[DT_RELRSZ];
    file->symbol_versions = e->versym;
    file->version_needs = e->verneed;
    file->version_definitions = e->verdef;
}

bool elf_read_dynamic(elf_file *file)
{
    if (!file->dynamic_bytes) {
        return elf_refuse(file, ATTN_VERDICT_BAD_ELF, "no dynamic table: not a shared object");
    }
    entries e = {0};
    if (!read_entries(file, &e) || !check_tables(file, &e) || !check_pairs(file, &e)) {
        return false;
    }
    if (!e.present[DT_STRTAB] || !e.present[DT_SYMTAB] || e.value[DT_SYMENT] != sizeof(Elf64_Sym) ||
        !elf_contains(file, e.value[DT_SYMTAB], sizeof(Elf64_Sym)) ||
        (!e.present[DT_HASH] && !e.gnu_hash)) {
        return elf_refuse(file, ATTN_VERDICT_BAD_ELF, "no table of symbols that can be searched");
    }
    if (file->n_needed > ELF_MAX_NEEDED) {
        return elf_refuse(file, ATTN_VERDICT_BAD_ELF, "needs %u libraries, expected at most %d",
                          file->n_needed, ELF_MAX_NEEDED);
    }
    if (e.flags_1 & DF_1_PIE) {
        return elf_refuse(file, ATTN_VERDICT_BAD_ELF, "it is a program, not a shared object");
    }
    file->strings = e.value[DT_STRTAB];
    file->strings_bytes = e.value[DT_STRSZ];
    file->symbols = e.value[DT_SYMTAB];
    file->hash = e.present[DT_HASH] ? e.value[DT_HASH] : 0;
    file->gnu_hash = e.gnu_hash;
    file->text_relocations =
        e.present[DT_TEXTREL] || (e.present[DT_FLAGS] && e.value[DT_FLAGS] & DF_TEXTREL);
    take_links(file, &e);
    return take_run_path(file, &e);
}
