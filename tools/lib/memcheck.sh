#!/usr/bin/env bash
# memcheck.sh BUILD [TEST...]: tests under valgrind's memcheck: any error, any block lost for good, fails.
# BUILD is without oneDNN and OpenMP.  Without names: the parsers, the loader with every fault, routing, what reads and
# writes files, the processors.  Not what mostly multiplies matrices: that is slow here, and AddressSanitizer runs it.
#
# No error is suppressed.  Left out with reason:
#   oneDNN           its generated code reads past the ends of rows within a page and masks what it read: thousands of
#                    reports, none of them ours.  Hence the build without it
#   changes_host     sets denormals to zero, which valgrind's processor does not have
#   setuid_host      valgrind cannot run a setuid program
#   huge_file        holds a time, which means nothing here
#   origin_library   has a run path, in which the dynamic linker's own strncmp reads a word past the end (glibc 2.36)
#   list of a ...    a script: it would be the shell that is looked at
#   constructor_*    run all the same; children that die there are the probe's, not traced
#   mutation         what damaged code does is not held against the host
set -euo pipefail
cd -- "$(dirname -- "$0")/../.."
build=${1:?memcheck.sh BUILD [TEST...]}
shift
tests=("$@")
if [ ${#tests[@]} -eq 0 ]; then
    tests=(names router registry safetensors 'bad models' tokenizer 'random numbers' schedulers 'sag arithmetic' pictures
        'processors contract' 'processors bad_input' 'processors stored' 'processors lora')
    while read -r name; do
        tests+=("$name")
    done < <(meson test -C "$build" --no-rebuild --list 2>/dev/null |
        sed -nE 's/^attnplug:(faults|fuzz) \/ //p' | grep -vE '^(changes_host|setuid_host|huge_file|origin_library|list of a thousand)')
fi
# MALLOC_PERTURB_, which meson sets, would give blocks values that nobody wrote.
MALLOC_PERTURB_=0 FUZZ_MUTATIONS=20 OMP_WAIT_POLICY=passive exec meson test -C "$build" --no-rebuild --print-errorlogs --logbase memcheck \
    --timeout-multiplier 30 --wrapper 'valgrind -q --error-exitcode=97 --leak-check=full --show-leak-kinds=definite
        --errors-for-leak-kinds=definite' "${tests[@]}"
