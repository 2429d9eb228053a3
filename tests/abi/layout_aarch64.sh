#!/bin/sh
# layout_aarch64.sh SOURCE_ROOT: the layout asserts hold on 64-bit ARM too.  clang needs no ARM system for that.
set -eu
command -v clang >/dev/null || { echo "SKIP: clang is not installed"; exit 77; }
clang --target=aarch64-linux-gnu -ffreestanding -std=c11 -Wall -Wextra -Werror -fsyntax-only -I"$1/abi" "$1/abi/layout.c"
# And the asserts can fail: a field more is noticed.
if sed 's/int32_t type;     /int32_t type, more; /' "$1/abi/attn_abi.h" |
    clang --target=aarch64-linux-gnu -ffreestanding -std=c11 -fsyntax-only -include /dev/stdin -I"$1/abi" "$1/abi/layout.c" 2>/dev/null; then
    echo "a changed layout went unnoticed" >&2
    exit 1
fi
