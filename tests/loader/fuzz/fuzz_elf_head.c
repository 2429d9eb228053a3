/* libFuzzer harness of what reads a stranger's file: elf_read_all.
 *
 *   CC=clang meson setup build-fuzz -Db_sanitize=address,undefined -Db_lundef=false
 *   ninja -C build-fuzz tests/loader/fuzz_elf_head
 *   build-fuzz/tests/loader/fuzz_elf_head -max_len=65536 corpus tests/loader/fuzz/seeds
 *
 * The seeds are small plugins, whole and damaged; tests/loader/fuzz/seeds.sh makes them anew. */
#include "elf_head.h"

#include "attn_host.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    elf_source source = {.fd = -1, .bytes = data, .size = size};
    elf_heads heads;
    if (!data) {
        return 0;
    }
    elf_read_all(&source, &heads);
    /* What is promised of the result. */
    if (heads.verdict == ATTN_VERDICT_OK) {
        const attn_head *head = heads.has_op ? &heads.op : &heads.processor;
        if ((!heads.has_op && !heads.has_processor) || !memchr(head->id, 0, sizeof head->id) ||
            head->magic != ATTN_MAGIC) {
            abort();
        }
    } else if (!heads.reason[0] || heads.has_op || heads.has_processor ||
               !memchr(heads.reason, 0, sizeof heads.reason)) {
        abort();
    }
    return 0;
}
