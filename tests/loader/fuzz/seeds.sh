#!/bin/sh
# seeds.sh FOLDER: makes the seed corpus: one small op, with either hash table, stripped, with a run path, and what is
# no plugin at all.
set -eu
out=$1
here=$(dirname -- "$0")
root=$here/../../..
mkdir -p "$out"
build() {
    name=$1
    shift
    ${CC:-cc} -shared -fPIC -Os -fvisibility=hidden -nostartfiles -I"$root/abi" -o "$out/$name.so" "$here/seed.c" \
        -Wl,-z,noexecstack,-z,max-page-size=4096,-z,noseparate-code "$@"
    strip "$out/$name.so"
}
build op
build sysv -Wl,--hash-style=sysv
build both -DPROCESSOR -Wl,--hash-style=both
build run_path '-Wl,-rpath,$ORIGIN/lib:/opt/lib'
build stack -Wl,-z,execstack
build later -DLATER
build bad_magic -DMAGIC=1
printf 'V1 { global: attn_op_v1; local: *; };\n' >"$out/map"
build linked -DLINKED
build versions -DLINKED "-Wl,--version-script=$out/map"
rm "$out/map"
head -c 700 "$out/op.so" >"$out/cut.so"
printf 'text' >"$out/text.so"
: >"$out/empty.so"
