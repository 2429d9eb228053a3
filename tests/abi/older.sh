#!/bin/sh
# older.sh FOLDER SOURCE_ROOT ATTNPLUG PLUGIN: a plugin built from an older header in today's host, and today's PLUGIN in an
# engine built from it.
set -eu
folder=$1 root=$2 attnplug=$3 plugin=$4
number() { sed -n 's/^#define ATTN_ABI  *\(0x[0-9A-Fa-f]*\).*/\1/p' "$1/attn_abi.h"; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
sed 's/@ID@/org.attnplug.test.older/; s/@NAME@/older/g; s/@VENDOR@/attnplug/' "$root/tools/template/op/op.c" >"$work/older.c"
cc -O2 -shared -fPIC -fvisibility=hidden -I"$folder" -o "$work/older.so" "$work/older.c" -lm
cc -O2 -D_GNU_SOURCE -I"$folder" -o "$work/engine" "$root/tests/engines/tiny/tiny.c" -ldl -lm

if [ "$(number "$folder")" = "$(number "$root/abi")" ]; then
    "$attnplug" check --quick --test numbers "$work/older.so"
    "$work/engine" "$plugin"
else
    # Both refuse, with both numbers.
    said=$("$attnplug" list --plugin-path "$work" 2>&1)
    printf '%s\n' "$said" | grep -A 1 "older.so" | tee "$work/verdict"
    grep -q BAD_ABI "$work/verdict"
    grep "$(number "$folder")" "$work/verdict" | grep -q "$(number "$root/abi")"
    if "$work/engine" "$plugin" 2>"$work/said"; then exit 1; fi
    tee /dev/stderr <"$work/said" | sed 's/0x0*/0x/g' | grep "$(number "$folder" | sed 's/0x0*/0x/')" |
        grep -q "$(number "$root/abi" | sed 's/0x0*/0x/')"
fi
