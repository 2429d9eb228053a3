#!/usr/bin/env bash
# run.sh SECONDS [NAME...]: libFuzzer on each harness for that long, from its seeds.  Builds build-fuzz with clang.
# --coverage [NAME...]: line coverage of each harness's parser instead, by its seeds and what fuzzing
# here has found beside them (build-fuzz/corpus); fails below 80 %.
# Names: adapters elf_head safetensors checkpoint index layer config picture scheduler tokenizer settings vocabulary.
set -euo pipefail
cd -- "$(dirname -- "$0")/../.."
export FUZZ_MODEL=$PWD/host-stub/models/emoji-128/tokenizer

all=(adapters elf_head safetensors checkpoint index layer config picture scheduler tokenizer settings vocabulary)

# Where a harness and its seeds lie: the parser of plugin files has its own beside the loader's tests.
place() { if [ "$1" = elf_head ]; then echo tests/loader; else echo tests/fuzz; fi; }
seeds() {
    case $1 in
    elf_head) echo tests/loader/fuzz/seeds ;;
    picture) echo tests/golden/pictures tests/fuzz/seeds/picture ;;
    *) echo "tests/fuzz/seeds/$1" ;;
    esac
}

# What each harness is for: the files whose coverage counts.
parser() {
    case $1 in
    elf_head) echo host-stub/loader/elf_{file,dynamic,symbol,head,links}.c ;;
    adapters) echo host-stub/model/{adapter_file,lora_keys,lora_set,custom_diffusion,inversion}.c ;;
    safetensors) echo host-stub/model/safetensors.c ;;
    checkpoint) echo host-stub/model/{checkpoint,checkpoint_shapes,checkpoint_names,checkpoint_config}.c ;;
    index) echo host-stub/model/tensor_set.c ;;
    layer) echo host-stub/model/layer_file.c host-stub/model/attention_config.c ;;
    config) echo host-stub/model/config.c host-stub/model/unet_config.c ;;
    picture) echo host-stub/pipeline/picture_{read,png,jpeg,webp}.c ;;
    scheduler) echo host-stub/pipeline/schedulers/*.c ;;
    tokenizer) echo host-stub/pipeline/{tokenizer,clip_text,clip_lower,bpe}.c ;;
    settings) echo host-stub/pipeline/tokenizer_config.c ;;
    vocabulary) echo host-stub/pipeline/{bpe_load,string_table}.c ;;
    *) echo "no harness $1; there are: ${all[*]}" >&2; return 2 ;;
    esac
}

coverage() {
    local name=$1 files data=build-coverage/$1.profdata program
    program=build-coverage/$(place "$name")/fuzz_$name
    files=$(parser "$name") || exit 2
    local inputs
    read -ra inputs <<<"$(seeds "$name")"
    [ ! -d "build-fuzz/corpus/$name" ] || inputs+=("build-fuzz/corpus/$name")
    ninja -C build-coverage --quiet "${program#build-coverage/}" >/dev/null
    LLVM_PROFILE_FILE=build-coverage/$name.profraw "$program" -runs=0 "${inputs[@]}" 2>build-coverage/$name.log ||
        { tail -n 30 "build-coverage/$name.log"; return 1; }
    llvm-profdata merge -o "$data" "build-coverage/$name.profraw"
    llvm-cov export -summary-only "$program" -instr-profile="$data" | python3 -c '
import json, sys
name, *wanted = sys.argv[1:]
files = json.load(sys.stdin)["data"][0]["files"]
lines = [f["summary"]["lines"] for w in wanted for f in files if f["filename"].endswith("/" + w)]
count, covered = sum(l["count"] for l in lines), sum(l["covered"] for l in lines)
print("%-12s %5.1f %% of %d lines of %s" % (name, 100 * covered / count, count, " ".join(wanted)))
sys.exit(len(lines) != len(wanted) or covered < 0.8 * count)' "$name" $files
}

if [ "${1:-}" = --coverage ]; then
    shift
    names=("$@")
    [ ${#names[@]} -gt 0 ] || names=("${all[@]}")
    export LLVM_PROFILE_FILE=/dev/null # programs that the build runs write none
    [ -f build-coverage/build.ninja ] || CC=clang meson setup build-coverage -Dfuzz=true -Dcuda=disabled -Dopenmp=disabled \
        -Doptimization=1 -Dc_args='-fsanitize=fuzzer-no-link -fprofile-instr-generate -fcoverage-mapping' \
        -Dc_link_args='-fprofile-instr-generate' -Db_lundef=false >/dev/null
    low=0
    for name in "${names[@]}"; do
        coverage "$name" || low=1
    done
    exit $low
fi

seconds=${1:?run.sh SECONDS [NAME...]}
shift
names=("$@")
[ ${#names[@]} -gt 0 ] || names=("${all[@]}")
[ -f build-fuzz/build.ninja ] || CC=clang meson setup build-fuzz -Dfuzz=true -Dcuda=disabled -Dopenmp=disabled \
    -Doptimization=1 -Ddebug=true -Dc_args='-fsanitize=fuzzer-no-link,address,undefined' \
    -Dc_link_args='-fsanitize=address,undefined' -Db_lundef=false >/dev/null
for name in "${names[@]}"; do
    program=$(place "$name")/fuzz_$name
    ninja -C build-fuzz --quiet "$program"
    mkdir -p "build-fuzz/corpus/$name"
    echo "== $name, $seconds s"
    read -ra inputs <<<"$(seeds "$name")"
    status=0 # of a harness that ends before it looks at anything, there are no findings
    "build-fuzz/$program" -max_total_time="$seconds" -print_final_stats=1 -timeout=10 -max_len=65536 \
        -artifact_prefix="build-fuzz/$name-" "build-fuzz/corpus/$name" "${inputs[@]}" >"build-fuzz/$name.log" 2>&1 || status=$?
    grep -E 'stat::|SUMMARY|ERROR|DONE' "build-fuzz/$name.log" || true
    [ "$status" -eq 0 ] || { tail -n 30 "build-fuzz/$name.log"; exit 1; }
    ! ls "build-fuzz/$name-"* >/dev/null 2>&1 || { echo "findings: build-fuzz/$name-*"; exit 1; }
done
