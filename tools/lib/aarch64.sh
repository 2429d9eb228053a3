#!/usr/bin/env bash
# aarch64.sh [BUILD]: everything is built for 64-bit ARM with Debian's cross compiler; the tests of loader, faults,
# ops and processors, and engines that use the header alone, run under qemu's emulation.  Exit 77: no compiler, libraries or
# emulator for that.
set -euo pipefail
cd -- "$(dirname -- "$0")/../.."
build=${1:-build-aarch64}

for program in aarch64-linux-gnu-gcc aarch64-linux-gnu-g++ qemu-aarch64-static; do
    command -v "$program" >/dev/null || { echo "SKIP: $program is not installed"; exit 77; }
done
[ -e /usr/lib/aarch64-linux-gnu/libcmocka.so ] || { echo "SKIP: libcmocka-dev:arm64 is not installed"; exit 77; }

[ -f "$build/build.ninja" ] ||
    env -u CC -u CXX meson setup "$build" --cross-file tools/lib/aarch64.ini -Dwerror=true -Dcuda=disabled -Donednn=disabled
ninja -C "$build" --quiet

# The loader starts its probe itself, where Meson's wrapper is not asked: in its place a script that starts the emulator.
probe=$build/attnplug/attnplug-probe
rm -f "$probe"
printf '#!/bin/sh\nexec qemu-aarch64-static "%s" "$@"\n' "$PWD/$build/attnplug-probe" >"$probe"
chmod +x "$probe"

run() { qemu-aarch64-static "$build/$1" "${@:2}"; }
run tests/loader/test_names
run tests/loader/test_router "$PWD/$build/attnplug/v1"
run tests/loader/test_registry "$PWD/$build/tests/loader/plain.so"
run tests/loader/test_mutation "$PWD/$build/tests/loader/plain.so" org.attnplug.test.plain --count 300
for op in math memory_efficient; do
    run tests/engines/tiny "$build/attnplug/v1/$op.so"
    run tests/engines/tiny_cc "$build/attnplug/v1/$op.so"
done
run tests/ops/test_ops "$build/attnplug/v1" tests/golden/ops
ATTNPLUG_TEST_PLUGINS=$PWD/$build/attnplug/v1 ATTNPLUG_TEST_GOLDEN=$PWD/tests/golden \
    run tests/processors/test_goldens tests/golden plugins/processors/README.md

# Three faults cannot be had here: the linker refuses text relocations, and two tests start a program by its own name.
faults=$(meson test -C "$build" --list --suite faults 2>/dev/null | sed -n 's|^.*faults / ||p' |
    grep -vxE 'text_relocations|setuid_host|list of a thousand')
# shellcheck disable=SC2086 # names have no spaces
meson test -C "$build" --no-rebuild --print-errorlogs $faults
