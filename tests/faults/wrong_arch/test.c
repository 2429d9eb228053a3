/* Files for other machines: dlopen's own words for them mislead. */
#include "fault.h"

#include <elf.h>

static void put_changed(size_t offset, unsigned char value, const char *name)
{
    size_t n = 0;
    unsigned char *bytes = fault_good_bytes(&n);
    bytes[offset] = value;
    fault_put_bytes(bytes, n, name);
    free(bytes);
}

static void test(void **state)
{
    (void)state;
    put_changed(EI_CLASS, ELFCLASS32, "small.so");
    put_changed(EI_DATA, ELFDATA2MSB, "order.so");
    put_changed(offsetof(Elf64_Ehdr, e_machine), EM_S390, "machine.so");
    put_changed(EI_OSABI, ELFOSABI_FREEBSD, "system.so");
    put_changed(offsetof(Elf64_Ehdr, e_type), ET_EXEC, "program.so");
    fault_registry(0);
    fault_expect("small.so", ATTN_VERDICT_WRONG_ARCH, "class is 1, expected 2");
    fault_expect("order.so", ATTN_VERDICT_WRONG_ARCH, "byte order is 2");
    fault_expect("machine.so", ATTN_VERDICT_WRONG_ARCH, "built for ELF machine 22");
    fault_expect("system.so", ATTN_VERDICT_WRONG_ARCH, "OS ABI is 9");
    fault_expect("program.so", ATTN_VERDICT_BAD_ELF, "type is 2, expected 3");
    fault_expect_good();
}

FAULT_MAIN(FAULT_TEST(test))
