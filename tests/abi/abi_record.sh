#!/bin/sh
# abi_record.sh SOURCE_ROOT [--update]: today's header against the recorded dump, by abidiff.
#
# While attn_abi.h says DRAFT a difference is reported and passes; from 1.0 on any difference fails.  --update moves the
# record (abi/attn_abi.abi) to today's header.  Exit 77 where abigail-tools is not installed.
set -eu
root=$1
if ! command -v abidw >/dev/null || ! command -v abidiff >/dev/null; then
    echo "SKIP: abigail-tools is not installed"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cc -g -O0 -shared -fPIC -I"$root/abi" -o "$work/witness.so" "$root/tests/abi/witness.c"
abidw --no-corpus-path --no-comp-dir-path --short-locs "$work/witness.so" >"$work/today.abi"
if [ "${2:-}" = --update ]; then
    cp "$work/today.abi" "$root/abi/attn_abi.abi"
    echo "recorded: abi/attn_abi.abi"
    exit 0
fi
if abidiff --no-show-locs "$root/abi/attn_abi.abi" "$work/today.abi"; then
    echo "the contract is as recorded"
elif head -n 1 "$root/abi/attn_abi.h" | grep -q DRAFT; then
    echo "DRAFT: the contract differs from the record; tests/abi/abi_record.sh . --update moves it"
else
    echo "the frozen contract has changed" >&2
    exit 1
fi
