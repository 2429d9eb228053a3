#include "clip_vocabulary.h"

/* The assembler copies the file in: C11 has no way to. */
__asm__(".section .rodata\n"
        ".global clip_merges\n"
        ".hidden clip_merges\n"
        ".global clip_merges_end\n"
        ".hidden clip_merges_end\n"
        "clip_merges:\n"
        ".incbin \"" CLIP_MERGES "\"\n"
        "clip_merges_end:\n"
        ".byte 0\n"
        ".previous\n");
