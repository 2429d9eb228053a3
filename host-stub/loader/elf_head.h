/* elf_head.h: the heads of a plugin file, read without running it. */
#ifndef ATTNPLUG_LOADER_ELF_HEAD_H
#define ATTNPLUG_LOADER_ELF_HEAD_H

#include "elf_file.h"

#include "attn_abi.h"

typedef struct {
    uint32_t verdict;      /* ATTN_VERDICT_... */
    char reason[ELF_TEXT]; /* "" where the verdict is OK */
    bool has_op, has_processor;
    attn_head op, processor;
    bool executable_stack, text_relocations; /* what it asks for that a careful host refuses */
    bool relative_run_path;
    char run_path[ELF_RUN_PATH];
    char needed[1024]; /* with a run path: names of libraries, each ended by a newline */
} elf_heads;

void elf_read_heads(const elf_source *source, elf_heads *heads);

/* As elf_read_heads, and checks what dlopen will follow (elf_links.h): for files about to be
 * opened. */
void elf_read_all(const elf_source *source, elf_heads *heads);

/* Texts, id, magic, abi and size of one head.  NULL: it may be used; else the reason, written to
 * `reason`, and the verdict. */
const char *head_check(const attn_head *head, uint32_t expected_size, const char *symbol,
                       uint32_t *verdict, char reason[ELF_TEXT]);

#endif
