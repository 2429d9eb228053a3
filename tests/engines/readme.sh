#!/bin/sh
# readme.sh SOURCE_ROOT: the plugin and the engine of README.md, cut out of it, build as it says and work together.
set -eu
root=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for name in naive engine; do
    "$root/tests/engines/cut.sh" "$root/README.md" $name >"$work/$name.c"
done
cc -O2 -Wall -Werror -shared -fPIC -fvisibility=hidden -I"$root/abi" -o "$work/naive.so" "$work/naive.c" -lm
cc -O2 -Wall -Werror -I"$root/abi" -o "$work/engine" "$work/engine.c" -ldl -lm
"$work/engine" "$work/naive.so" | tee "$work/said"
grep -q '^com.example.naive 1.0.0: ok' "$work/said"
