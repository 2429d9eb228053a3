#!/bin/sh
# tidy.sh BUILD: clang-tidy by .clang-tidy on every C file that BUILD compiles.
set -eu
cd -- "$(dirname -- "$0")/../.."
build=$(realpath "${1:-build}")
python3 - "$build" <<'PY' | xargs -r -P "$(nproc)" -n 4 clang-tidy --quiet -p "$build" 2>/dev/null
import json, os, sys
build = sys.argv[1]
root = os.getcwd()
files = set()
for entry in json.load(open(os.path.join(build, "compile_commands.json"))):
    path = os.path.realpath(os.path.join(entry["directory"], entry["file"]))
    if path.startswith(root + os.sep) and path.endswith(".c"):
        files.add(path)
print("\n".join(sorted(files)))
PY
