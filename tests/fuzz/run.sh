#!/usr/bin/env bash
# run.sh SECONDS [NAME...]: libFuzzer on each harness for that long, from its seeds.  Builds build-fuzz with clang.
# --coverage NAME: line coverage of what the harness and its corpus reach instead.
set -euo pipefail
cd -- "$(dirname -- "$0")/../.."
here=tests/fuzz
export FUZZ_MODEL=$PWD/host-stub/models/emoji-128/tokenizer

if [ "${1:-}" = --coverage ]; then
    name=${2:?--coverage wants a harness}
    [ -f build-coverage/build.ninja ] || CC=clang meson setup build-coverage -Dfuzz=true -Dcuda=disabled -Dopenmp=disabled \
        -Doptimization=1 -Dc_args='-fsanitize=fuzzer-no-link -fprofile-instr-generate -fcoverage-mapping' \
        -Dc_link_args='-fprofile-instr-generate' -Db_lundef=false >/dev/null
    ninja -C build-coverage --quiet "tests/fuzz/fuzz_$name"
    corpus=("$here/seeds/$name")
    [ ! -d "build-fuzz/corpus/$name" ] || corpus+=("build-fuzz/corpus/$name")
    LLVM_PROFILE_FILE=build-coverage/$name.profraw "build-coverage/tests/fuzz/fuzz_$name" -runs=0 "${corpus[@]}" 2>/dev/null
    llvm-profdata merge -o "build-coverage/$name.profdata" "build-coverage/$name.profraw"
    llvm-cov report "build-coverage/tests/fuzz/fuzz_$name" -instr-profile="build-coverage/$name.profdata"
    exit
fi

seconds=${1:?run.sh SECONDS [NAME...]}
shift
names=("$@")
[ ${#names[@]} -gt 0 ] || names=(safetensors scheduler tokenizer vocabulary)
[ -f build-fuzz/build.ninja ] || CC=clang meson setup build-fuzz -Dfuzz=true -Dcuda=disabled -Dopenmp=disabled \
    -Doptimization=1 -Ddebug=true -Dc_args='-fsanitize=fuzzer-no-link,address,undefined' \
    -Dc_link_args='-fsanitize=address,undefined' -Db_lundef=false >/dev/null
for name in "${names[@]}"; do
    ninja -C build-fuzz --quiet "tests/fuzz/fuzz_$name"
    mkdir -p "build-fuzz/corpus/$name"
    echo "== $name, $seconds s"
    "build-fuzz/tests/fuzz/fuzz_$name" -max_total_time="$seconds" -print_final_stats=1 -timeout=10 -max_len=65536 \
        -artifact_prefix="build-fuzz/$name-" "build-fuzz/corpus/$name" "$here/seeds/$name" 2>&1 |
        grep -E 'stat::|SUMMARY|ERROR|DONE' || true
    ! ls "build-fuzz/$name-"* >/dev/null 2>&1 || { echo "findings: build-fuzz/$name-*"; exit 1; }
done
