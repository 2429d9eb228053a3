#!/usr/bin/env bash
# list_thousand.sh ATTNPLUG GOOD.so ABORTING.so: `attnplug list` on a folder of 1,000 files, good, bad, huge, empty, FIFOs,
# links to nowhere and in circles, and plugins whose constructor aborts.  One line a file, none opened by the dynamic
# linker, and in less than a second.
# shellcheck disable=SC2046 # a word for each name
set -euo pipefail
attnplug=$(realpath "$1") good=$(realpath "$2") aborting=$(realpath "$3")
work=$(mktemp -d /tmp/attnplug-list-XXXXXX)
trap 'rm -rf "$work"' EXIT
chmod 700 "$work"
mkdir "$work/files" "$work/home"
cd "$work/files"
names() { seq -f "$1" 125; } # one kind's names; few processes make all files
tee $(names text-%03g.so) >/dev/null <<<'not a plugin'
tee $(names cut-%03g.so) >/dev/null < <(head -c 3000 "$good")
tee $(names huge-%03g.so) >/dev/null <"$good"
truncate -s 8G $(names huge-%03g.so)
tee $(names aborts-%03g.so) >/dev/null <"$aborting"
tee $(names good-%03g.so) >/dev/null <"$good"
touch $(names empty-%03g.so)
mkfifo $(names fifo-%03g.so)
ln -s $(seq -f /nonexistent/nowhere-%03g.so 63) .
ln -s $(seq -f ./circle-%03g.so 62) .

cd "$work"
list() { env -i PATH="$PATH" HOME="$work/home" "$@" "$attnplug" list --json --plugin-path "$work/files"; }

begin=$(date +%s%N)
list >json
ms=$((($(date +%s%N) - begin) / 1000000))
lines=$(grep -o "\"path\": *\"$work/files/[^\"]*\"" json | wc -l)
echo "$lines files listed in $ms ms"
[ "$lines" -eq 1000 ]
[ "$ms" -lt 1000 ]
grep -q constructor json && { echo "a constructor's word is in the list" >&2; exit 1; }

list LD_DEBUG=files LD_DEBUG_OUTPUT="$work/linker" >/dev/null
grep -q 'libc.so' "$work"/linker.* # it writes what it opens
if grep -E "$work/files|memfd:" "$work"/linker.*; then
    echo "a listed file was opened by the dynamic linker" >&2
    exit 1
fi
