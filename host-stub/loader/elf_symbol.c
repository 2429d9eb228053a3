/* elf_symbol.c: finds a symbol through the hash tables, as the dynamic linker will. */
#include "elf_file.h"

#include "attn_host.h"

#include <stddef.h>
#include <string.h>

enum { MAX_CHAIN = 4096, MAX_NAME = 64, MAX_COUNTED = 1 << 20 };

static uint32_t gnu_hash(const char *name)
{
    uint32_t h = 5381;
    for (; *name; name++) {
        h = h * 33 + (unsigned char)*name;
    }
    return h;
}

static uint32_t sysv_hash(const char *name)
{
    uint32_t h = 0;
    for (; *name; name++) {
        h = (h << 4) + (unsigned char)*name;
        uint32_t top = h & 0xf0000000u;
        h = (h ^ (top >> 24)) & ~top;
    }
    return h;
}

static bool refuse_hash(elf_file *file)
{
    return elf_refuse(file, ATTN_VERDICT_BAD_ELF, "its table of symbols points outside itself");
}

/* Reads symbol `index` and says whether it is the defined one of that name. */
static bool symbol_matches(elf_file *file, uint32_t index, const char *name, bool *matches,
                           Elf64_Sym *symbol)
{
    char text[MAX_NAME] = "";
    size_t n = strlen(name) + 1;
    if (!elf_read_at(file, file->symbols + (uint64_t)index * sizeof *symbol, symbol,
                     sizeof *symbol)) {
        return refuse_hash(file);
    }
    if (symbol->st_name >= file->strings_bytes) {
        return refuse_hash(file);
    }
    *matches = symbol->st_shndx != SHN_UNDEF && n <= sizeof text &&
               n <= file->strings_bytes - symbol->st_name &&
               elf_read_at(file, file->strings + symbol->st_name, text, n) &&
               memcmp(text, name, n) == 0;
    return true;
}

/* Table: n_buckets, first symbol, bloom words (a power of two), bloom shift; bloom[]; buckets[];
 * hashes[], of which the last of each bucket has bit 0 set. */
static bool find_gnu(elf_file *file, const char *name, bool *found, Elf64_Sym *symbol)
{
    uint32_t head[4];
    if (!elf_read_at(file, file->gnu_hash, head, sizeof head) || head[0] == 0 || head[2] == 0 ||
        head[2] & (head[2] - 1)) {
        return refuse_hash(file);
    }
    uint64_t buckets = file->gnu_hash + sizeof head + (uint64_t)head[2] * 8;
    uint64_t hashes = buckets + (uint64_t)head[0] * 4;
    uint32_t h = gnu_hash(name);
    uint32_t index = 0;
    if (!elf_read_at(file, buckets + (uint64_t)(h % head[0]) * 4, &index, sizeof index)) {
        return refuse_hash(file);
    }
    if (index == 0) {
        return true;
    }
    if (index < head[1]) {
        return refuse_hash(file);
    }
    for (uint32_t step = 0; step < MAX_CHAIN; step++, index++) {
        uint32_t word = 0;
        if (!elf_read_at(file, hashes + (uint64_t)(index - head[1]) * 4, &word, sizeof word)) {
            return refuse_hash(file);
        }
        if ((word | 1) == (h | 1) && !symbol_matches(file, index, name, found, symbol)) {
            return false;
        }
        if (*found || word & 1) {
            return true;
        }
    }
    return refuse_hash(file);
}

/* Table: n_buckets, n_chains; buckets[]; chains[]. */
static bool find_sysv(elf_file *file, const char *name, bool *found, Elf64_Sym *symbol)
{
    uint32_t head[2];
    if (!elf_read_at(file, file->hash, head, sizeof head) || head[0] == 0) {
        return refuse_hash(file);
    }
    uint64_t buckets = file->hash + sizeof head;
    uint64_t chains = buckets + (uint64_t)head[0] * 4;
    uint32_t index = 0;
    if (!elf_read_at(file, buckets + (uint64_t)(sysv_hash(name) % head[0]) * 4, &index,
                     sizeof index)) {
        return refuse_hash(file);
    }
    for (uint32_t step = 0; index != STN_UNDEF && step < MAX_CHAIN; step++) {
        if (index >= head[1] || !symbol_matches(file, index, name, found, symbol)) {
            return file->verdict ? false : refuse_hash(file);
        }
        if (*found) {
            return true;
        }
        if (!elf_read_at(file, chains + (uint64_t)index * 4, &index, sizeof index)) {
            return refuse_hash(file);
        }
    }
    return index == STN_UNDEF ? true : refuse_hash(file);
}

bool elf_symbol(elf_file *file, const char *name, bool *found, Elf64_Sym *symbol)
{
    *found = false;
    return file->gnu_hash ? find_gnu(file, name, found, symbol)
                          : find_sysv(file, name, found, symbol);
}

/* The highest index that a bucket starts at, then to the end of that chain. */
static bool count_gnu(elf_file *file, uint32_t *n)
{
    uint32_t head[4], bucket = 0, word = 0;
    if (!elf_read_at(file, file->gnu_hash, head, sizeof head) || head[0] > MAX_COUNTED) {
        return refuse_hash(file);
    }
    uint64_t buckets = file->gnu_hash + sizeof head + (uint64_t)head[2] * 8;
    *n = head[1];
    for (uint32_t i = 0; i < head[0]; i++) {
        if (!elf_read_at(file, buckets + (uint64_t)i * 4, &bucket, sizeof bucket) ||
            (bucket && bucket < head[1])) {
            return refuse_hash(file);
        }
        *n = bucket > *n ? bucket : *n;
    }
    if (*n == head[1] && !bucket) {
        return true;
    }
    uint64_t hashes = buckets + (uint64_t)head[0] * 4;
    for (; *n < MAX_COUNTED; ++*n) {
        if (!elf_read_at(file, hashes + (uint64_t)(*n - head[1]) * 4, &word, sizeof word)) {
            return refuse_hash(file);
        }
        if (word & 1) {
            ++*n;
            return true;
        }
    }
    return refuse_hash(file);
}

bool elf_symbol_count(elf_file *file, uint32_t *n)
{
    uint32_t head[2];
    if (file->gnu_hash) {
        return count_gnu(file, n);
    }
    if (!elf_read_at(file, file->hash, head, sizeof head) || head[1] > MAX_COUNTED) {
        return refuse_hash(file);
    }
    *n = head[1];
    return true;
}
