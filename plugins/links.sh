#!/bin/sh
# links.sh FOLDER STAMP FILE.so...: makes FOLDER hold links to the files, and to nothing else.
set -eu
folder=$1 stamp=$2
shift 2
rm -rf "$folder"
mkdir -p "$folder"
for file in "$@"; do
    ln -s "$(realpath "$file")" "$folder/$(basename "$file")"
done
: >"$stamp"
