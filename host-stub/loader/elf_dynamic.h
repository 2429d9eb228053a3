/* elf_dynamic.h: the dynamic table of an elf_file. */
#ifndef ATTNPLUG_LOADER_ELF_DYNAMIC_H
#define ATTNPLUG_LOADER_ELF_DYNAMIC_H

#include "elf_file.h"

/* Fills in what the dynamic table says; checks that its tables lie inside the image. */
bool elf_read_dynamic(elf_file *file);

#endif
