#!/bin/sh
# format.sh [--fix]: C and CUDA files that clang-format would change, by .clang-format; --fix changes them.
set -eu
cd -- "$(dirname -- "$0")/../.."
list() { git ls-files '*.c' '*.h' '*.cu' '*.cuh'; }
if [ "${1:-}" = --fix ]; then
    list | xargs -r clang-format -i
else
    list | xargs -r clang-format --dry-run -Werror
fi
