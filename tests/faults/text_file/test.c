/* Text, nothing, or another format under a plugin's name. */
#include "fault.h"

static void test(void **state)
{
    (void)state;
    fault_put_bytes("#!/bin/sh\necho hello\n", 21, "script.so");
    fault_put_bytes("", 0, "empty.so");
    fault_put_bytes("\x7f", 1, "byte.so");
    fault_put_bytes("INPUT(libc.so.6)\n", 17, "linker.so");
    fault_registry(0);
    fault_expect("script.so", ATTN_VERDICT_NOT_ELF, "not an ELF file");
    fault_expect("empty.so", ATTN_VERDICT_NOT_ELF, "empty");
    fault_expect("byte.so", ATTN_VERDICT_NOT_ELF, "not an ELF file");
    fault_expect("linker.so", ATTN_VERDICT_NOT_ELF, "not an ELF file");
    fault_expect_good();
}

FAULT_MAIN(FAULT_TEST(test))
