#!/bin/sh
# new_plugin.sh ATTNPLUG SOURCE_ROOT: what tools/new-plugin writes builds with one command and passes the check.
set -eu
attnplug=$1 root=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$root/tools/new-plugin" op plain "$work" --vendor 'R&D | Söhne'
"$root/tools/new-plugin" op plus "$work" --c++ --id org.example.plus
"$root/tools/new-plugin" processor layer "$work"
for name in plain plus layer; do
    make -C "$work/$name" CFLAGS='-O2 -Werror' CXXFLAGS='-O2 -Werror' >/dev/null
    "$attnplug" check --quick "$work/$name/$name.so"
done
grep -q '"R&D | Söhne"' "$work/plain/plain.c"
# Wrong usage writes nothing.
if "$root/tools/new-plugin" op 'no good' "$work" 2>/dev/null; then exit 1; fi
if "$root/tools/new-plugin" op plain "$work" 2>/dev/null; then exit 1; fi
for vendor in 'a "name"' 'back\slash' 'A name of more than thirty-one bytes'; do
    if "$root/tools/new-plugin" op vain "$work" --vendor "$vendor" 2>/dev/null; then exit 1; fi
done
[ ! -e "$work/no good" ] && [ ! -e "$work/vain" ]
