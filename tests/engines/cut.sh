#!/bin/sh
# cut.sh README NAME: prints the C file that README.md shows under that name.
set -eu
awk -v want="/* $2.c:" '/^```c$/ {inside = 1; text = ""; next}
    /^```$/ && inside {inside = 0; if (index(text, want) == 1) {printf "%s", text; found = 1}; next}
    inside {text = text $0 "\n"}
    END {exit !found}' "$1" || { echo "$1 has no $2.c" >&2; exit 1; }
