#!/bin/sh
# tidy.sh BUILD: clang-tidy by .clang-tidy on every C file that BUILD compiles.
#
# Each file is looked at once, as the first target that has it compiles it: clang-tidy by itself goes through a file
# again for every target, forty times for a test plugin of forty faults.
set -eu
cd -- "$(dirname -- "$0")/../.."
build=$(realpath "${1:-build}")
mkdir -p "$build/tidy"
python3 - "$build" <<'PY' | xargs -r -P "$(nproc)" -n 4 clang-tidy --quiet -p "$build/tidy" 2>/dev/null
import json, os, sys
build = sys.argv[1]
root = os.getcwd()
entries = {}
for entry in json.load(open(os.path.join(build, "compile_commands.json"))):
    path = os.path.realpath(os.path.join(entry["directory"], entry["file"]))
    if path.startswith(root + os.sep) and path.endswith(".c"):
        entries.setdefault(path, entry)
with open(os.path.join(build, "tidy", "compile_commands.json"), "w") as out:
    json.dump(list(entries.values()), out)
print("\n".join(sorted(entries)))
PY
