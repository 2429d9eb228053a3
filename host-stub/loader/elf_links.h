/* elf_links.h: the tables that the dynamic linker follows blindly: versions and relocations. */
#ifndef ATTNPLUG_LOADER_ELF_LINKS_H
#define ATTNPLUG_LOADER_ELF_LINKS_H

#include "elf_file.h"

/* Whether every version, symbol and relocation that dlopen will touch lies where it may.  A file
 * that fails would crash dlopen, or have it write where it should not.  Reads the whole tables, so
 * it is for files that are about to be opened.  False: file->verdict and reason say why. */
bool elf_check_links(elf_file *file);

#endif
