#!/bin/sh
# expect.sh ATTNPLUG PLUGIN TEST [TEXT]: that test of the check finds something, and says TEXT (a regular expression).
set -eu
case $3 in
head | exports | imports) group='file' ;;
*) group=$3 ;;
esac
said=$("$1" check --quick --timeout 4 --test "$group" "$2") && { echo "$said"; echo "the check found nothing" >&2; exit 1; }
printf '%s\n' "$said"
printf '%s\n' "$said" | grep -qE "^  FAIL  $3( |\$)"
printf '%s\n' "$said" | grep -qE "${4:-}" || { echo "expected: $4" >&2; exit 1; }
