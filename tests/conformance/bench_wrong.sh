#!/bin/sh
# bench_wrong.sh ATTNPLUG WRONG.so APPROXIMATE.so MATH.so: an op whose result is wrong gets no time; one that says that it
# approximates, and is near enough, gets one.
set -eu
attnplug=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
ln -s "$(readlink -f "$4")" "$folder/math.so"
bench() { "$attnplug" bench --trust-all --plugin-path "$folder" --op org.attnplug.test.wrong --shapes 1,1,16,16,16 2>&1; }

ln -s "$(readlink -f "$2")" "$folder/op.so"
said=$(bench) && { echo "$said"; echo "bench timed a wrong op" >&2; exit 1; }
printf '%s\n' "$said"
printf '%s\n' "$said" | grep -q "org.attnplug.test.wrong is wrong at 1,1,16,16,16"

ln -sf "$(readlink -f "$3")" "$folder/op.so"
bench
