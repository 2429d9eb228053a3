#!/bin/sh
# report.sh ATTNPLUG NARROW.so WRONG.so UNSTARTED.so ELSEWHERE.so: what the report says of tests that are missing, alone, or
# saw nothing; of a CPU's op whose create says that it runs nowhere, and of one for another device.
set -eu
attnplug=$1 plugin=$2 wrong=$3 unstarted=$4 elsewhere=$5
said=''
# run STATUS ARGUMENT...: leaves what `attnplug check ARGUMENT...` says in $said.
run() {
    expected=$1 status=0
    shift
    said=$("$attnplug" check "$@" 2>&1) || status=$?
    [ "$status" = "$expected" ] || { echo "check $*: status $status, expected $expected"; echo "$said"; exit 1; }
}
says() { printf '%s\n' "$said" | grep -qE "$1" || { echo "expected: $1"; echo "$said"; exit 1; }; }
run 2 --test nope "$plugin"
says '^attnplug: --test nope: no such test'
run 2 --test layers "$plugin"
says 'a test of processors, which this file has none of'
run 0 --quick --test plain "$plugin"
says '^passed; this was 1 test of 17$'
run 0 --test file "$plugin"
says '^passed; this was 4 tests of 17$'
run 0 --test exports "$plugin"
says '^passed; this was 1 test of 17$'
run 1 --quick --test plain --case 0 "$plugin"
says '^  none  plain '
says '^nothing was seen; this was 1 test of 17$'
run 0 --quick "$plugin"
says '^  pass  agreement +[0-9]+ calls, +[0-9]+ % taken'
says '^  pass  numbers .*% taken, error at most .* of the bound \(case [0-9]+\)'
run 0 --quick --json "$plugin"
says '"worst_case": [0-9]'
run 1 /proc/nonexistent.so
says 'No such file or directory'
run 1 /tmp
says 'is a folder; expected a plugin'
# What did not run is not fit to ship.
run 1 --quick "$unstarted"
says '^nothing of it could be run here$'
run 1 --quick --test plain "$unstarted"
says '^nothing was seen; this was 1 test of 17$'
run 0 --quick "$elsewhere"
says '^only its file was looked at: its head is not for this device$'
run 0 --quick --json "$elsewhere"
says '"unseen": "only its file'
# A path that is no UTF-8 does not break the JSON; a command to repeat a case takes any path for one word.
run 1 --json "$(printf '/none\377.so')"
says '"path": "/none\\ufffd\.so"'
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$wrong" "$work/it's wrong.so"
run 1 --test plain "$work/it's wrong.so"
again=$(printf '%s\n' "$said" | sed -n 's/^ *again: attnplug //p')
status=0
eval "\"\$attnplug\" $again" >/dev/null || status=$?
[ "$status" = 1 ]
