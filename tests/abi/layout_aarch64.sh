#!/bin/sh
# layout_aarch64.sh SOURCE_ROOT: the asserts of layout and values hold on 64-bit ARM too.  clang needs no ARM system for that.
set -eu
root=$1
command -v clang >/dev/null || { echo "SKIP: clang is not installed"; exit 77; }
compile() { # FILE OPTION...
    file=$1
    shift
    clang --target=aarch64-linux-gnu -ffreestanding -std=c11 -Wall -Wextra -Werror -fsyntax-only -I"$root/abi" "$@" "$root/abi/$file"
}
compile layout.c
compile values.c
# And the asserts can fail: a field more is noticed, and a number that has changed.
unnoticed() { # FILE SED
    if sed "$2" "$root/abi/attn_abi.h" | compile "$1" -include /dev/stdin 2>/dev/null; then
        echo "$1: a changed header ($2) went unnoticed" >&2
        exit 1
    fi
}
unnoticed layout.c 's/int32_t type;     /int32_t type, more; /'
unnoticed values.c 's/define ATTN_CALL_BAND 1u/define ATTN_CALL_BAND 8u/'
# It was the number: the header with a field more has the same ones, and compiles.
sed 's/int32_t type;     /int32_t type, more; /' "$root/abi/attn_abi.h" | compile values.c -include /dev/stdin
