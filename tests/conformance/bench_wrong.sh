#!/bin/sh
# bench_wrong.sh ATTNPLUG WRONG.so MATH.so: an op whose result is wrong gets no time.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
ln -s "$(readlink -f "$2")" "$folder/wrong.so"
ln -s "$(readlink -f "$3")" "$folder/math.so"
said=$("$1" bench --trust-all --plugin-path "$folder" --op org.attnplug.test.wrong --shapes 1,1,16,16,16 2>&1) && {
    echo "$said"
    echo "bench timed a wrong op" >&2
    exit 1
}
printf '%s\n' "$said"
printf '%s\n' "$said" | grep -q "org.attnplug.test.wrong is wrong at 1,1,16,16,16"
