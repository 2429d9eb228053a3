/* elf_head.c: finds attn_op_v1 and attn_processor_v1 in a file and judges their plain bytes. */
#include "elf_head.h"

#include "attn_host.h"
#include "elf_links.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* Bytes of the character at the start of a terminated text; 0: it is no UTF-8 (RFC 3629), or a
 * control character. */
static size_t character_bytes(const char *text)
{
    const unsigned char *c = (const unsigned char *)text;
    if (c[0] < 0x80) {
        return c[0] >= 0x20 && c[0] != 0x7f;
    }
    size_t n = c[0] < 0xc2 ? 0 : c[0] < 0xe0 ? 2 : c[0] < 0xf0 ? 3 : c[0] < 0xf5 ? 4 : 0;
    for (size_t i = 1; i < n; i++) {
        if ((c[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    bool is_long = (c[0] == 0xe0 && c[1] < 0xa0) || (c[0] == 0xf0 && c[1] < 0x90);
    bool is_surrogate = c[0] == 0xed && c[1] >= 0xa0;
    bool is_beyond = c[0] == 0xf4 && c[1] >= 0x90;
    bool is_control = c[0] == 0xc2 && c[1] < 0xa0;
    return is_long || is_surrogate || is_beyond || is_control ? 0 : n;
}

/* Terminated, printable UTF-8, and NULs from there on. */
static bool text_is_sane(const char *text, size_t capacity, bool may_be_empty)
{
    size_t n = strnlen(text, capacity);
    if (n == capacity || (n == 0 && !may_be_empty)) {
        return false;
    }
    for (size_t i = 0; i < n;) {
        size_t bytes = character_bytes(text + i);
        if (!bytes) {
            return false;
        }
        i += bytes;
    }
    for (size_t i = n; i < capacity; i++) {
        if (text[i]) {
            return false;
        }
    }
    return true;
}

static bool id_is_sane(const char id[64])
{
    if (!text_is_sane(id, 64, false) || !strchr(id, '.') || id[0] == '.') {
        return false;
    }
    return id[strspn(id, "abcdefghijklmnopqrstuvwxyz0123456789._-")] == 0;
}

const char *head_check(const attn_head *head, uint32_t expected_size, const char *symbol,
                       uint32_t *verdict, char reason[ELF_TEXT])
{
    *verdict = ATTN_VERDICT_BAD_ABI;
    if (head->magic != ATTN_MAGIC) {
        (void)snprintf(reason, ELF_TEXT, "%s: magic is 0x%08x, expected 0x%08x", symbol,
                       head->magic, ATTN_MAGIC);
        return reason;
    }
    if (head->abi != ATTN_ABI) {
        (void)snprintf(reason, ELF_TEXT, "%s: built for abi 0x%08x, this host has 0x%08x", symbol,
                       head->abi, ATTN_ABI);
        return reason;
    }
    if (head->size < expected_size) {
        (void)snprintf(reason, ELF_TEXT, "%s: its size is %u bytes, expected at least %u", symbol,
                       head->size, expected_size);
        return reason;
    }
    *verdict = ATTN_VERDICT_BAD_HEAD;
    const char *bad = !id_is_sane(head->id)                                       ? "id"
                      : !text_is_sane(head->version, sizeof head->version, false) ? "version"
                      : !text_is_sane(head->vendor, sizeof head->vendor, true)    ? "vendor"
                      : !text_is_sane(head->summary, sizeof head->summary, true)  ? "summary"
                      : !head->devices                                            ? "devices"
                      : !head->dtypes                                             ? "dtypes"
                                                                                  : NULL;
    if (bad) {
        (void)snprintf(reason, ELF_TEXT, "%s: its %s is empty or not what attn_abi.h allows",
                       symbol, bad);
        return reason;
    }
    *verdict = ATTN_VERDICT_OK;
    return NULL;
}

/* One of the two symbols: absent is fine, wrong is a verdict. */
static bool read_head(elf_file *file, const char *symbol, uint32_t expected_size, attn_head *head,
                      bool *present)
{
    Elf64_Sym s;
    if (!elf_symbol(file, symbol, present, &s)) {
        return false;
    }
    if (!*present) {
        return true;
    }
    if (ELF64_ST_TYPE(s.st_info) != STT_OBJECT || s.st_shndx == SHN_ABS) {
        return elf_refuse(file, ATTN_VERDICT_BAD_HEAD, "%s: not a data symbol", symbol);
    }
    if (!elf_read_at(file, s.st_value, head, sizeof *head)) {
        return elf_refuse(file, ATTN_VERDICT_BAD_HEAD, "%s: lies outside the file", symbol);
    }
    char reason[ELF_TEXT];
    uint32_t verdict;
    if (head_check(head, expected_size, symbol, &verdict, reason)) {
        return elf_refuse(file, verdict, "%s", reason);
    }
    if (s.st_value % 8) {
        return elf_refuse(file, ATTN_VERDICT_BAD_HEAD,
                          "%s: lies at 0x%llx, expected a multiple of 8", symbol,
                          (unsigned long long)s.st_value);
    }
    if (s.st_size < head->size || !elf_contains(file, s.st_value, head->size)) {
        return elf_refuse(file, ATTN_VERDICT_BAD_HEAD,
                          "%s: its head says %u bytes, the symbol has %llu", symbol, head->size,
                          (unsigned long long)s.st_size);
    }
    return true;
}

/* Neither symbol: is it from a later contract, or no plugin at all? */
static bool refuse_without_entry(elf_file *file)
{
    static const char *const later[] = {"attn_op_v2", "attn_processor_v2", "attn_op_v3",
                                        "attn_processor_v3"};
    for (size_t i = 0; i < sizeof later / sizeof *later; i++) {
        Elf64_Sym s;
        bool found;
        if (!elf_symbol(file, later[i], &found, &s)) {
            return false;
        }
        if (found) {
            return elf_refuse(file, ATTN_VERDICT_NO_V1,
                              "has %s, this host knows attn_op_v1 and attn_processor_v1", later[i]);
        }
    }
    return elf_refuse(file, ATTN_VERDICT_NO_ENTRY,
                      "exports neither attn_op_v1 nor attn_processor_v1");
}

/* "/a:$ORIGIN/lib" is fine, "lib" and "" are found from the current folder. */
static bool run_path_is_relative(const char *path)
{
    for (;;) {
        if (*path != '/' && strncmp(path, "$ORIGIN", 7) != 0 &&
            strncmp(path, "${ORIGIN}", 9) != 0) {
            return true;
        }
        path = strchr(path, ':');
        if (!path) {
            return false;
        }
        path++;
    }
}

/* Names that do not fit are left to the dynamic linker alone. */
static bool read_needed(elf_file *file, elf_heads *heads)
{
    size_t used = 0;
    for (uint32_t i = 0; file->has_run_path && i < file->n_needed; i++) {
        char name[256];
        if (!elf_string(file, file->needed[i], name, sizeof name)) {
            return elf_refuse(file, ATTN_VERDICT_BAD_ELF,
                              "the name of library %u is not a text of under %zu bytes", i,
                              sizeof name);
        }
        size_t n = strlen(name);
        if (used + n + 2 <= sizeof heads->needed) {
            memcpy(heads->needed + used, name, n);
            heads->needed[used + n] = '\n';
            used += n + 1;
        }
    }
    return true;
}

static bool read_both(elf_file *file, elf_heads *heads)
{
    if (!read_head(file, "attn_op_v1", sizeof(attn_op_api), &heads->op, &heads->has_op) ||
        !read_head(file, "attn_processor_v1", sizeof(attn_processor_api), &heads->processor,
                   &heads->has_processor)) {
        return false;
    }
    return heads->has_op || heads->has_processor ? true : refuse_without_entry(file);
}

static void read_file(const elf_source *source, bool links, elf_heads *heads)
{
    elf_file file;
    *heads = (elf_heads){0};
    if (!elf_file_open(&file, source) || !read_both(&file, heads) || !read_needed(&file, heads) ||
        (links && !elf_check_links(&file))) {
        heads->has_op = heads->has_processor = false;
        heads->verdict = file.verdict;
        memcpy(heads->reason, file.reason, sizeof heads->reason);
        return;
    }
    heads->executable_stack = file.executable_stack;
    heads->text_relocations = file.text_relocations;
    heads->relative_run_path = file.has_run_path && run_path_is_relative(file.run_path);
    memcpy(heads->run_path, file.run_path, sizeof heads->run_path);
}

void elf_read_heads(const elf_source *source, elf_heads *heads)
{
    read_file(source, false, heads);
}

void elf_read_all(const elf_source *source, elf_heads *heads)
{
    read_file(source, true, heads);
}
