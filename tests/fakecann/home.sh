#!/bin/sh
# home.sh FOLDER STAMP (NAME LIBRARY)...: a release of the stand-in: links under CANN's names.
set -eu
folder=$1 stamp=$2
shift 2
rm -rf "$folder"
mkdir -p "$folder"
while [ $# -gt 0 ]; do
    ln -s "$2" "$folder/$1"
    shift 2
done
touch "$stamp"
