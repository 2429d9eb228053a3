#!/bin/sh
# The example draws, is stopped by Ctrl-C without leaving a file, and says what is wrong.
# run.sh DRAW MODEL PLUGINS
set -eu
draw=$(realpath "$1") model=$2
export ATTNPLUG_PATH=$3
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
cd "$folder"

"$draw" "$model" "red heart" heart.ppm 3 >out
test "$(grep -c '^step . of 3, timestep [0-9]*, latents 32 x 32$' out)" = 3
test "$(head -c 15 heart.ppm | tr '\n' ' ')" = "P6 128 128 255 "
test "$(wc -c <heart.ppm)" = $((15 + 128 * 128 * 3))

# One step is told of, then it is interrupted: of 900 none but a few are run.
mkfifo steps
exec 3<>steps # stays open, so that writing to it goes on
"$draw" "$model" "red heart" stopped.ppm 900 >steps 2>err &
child=$!
IFS= read -r line <&3
kill -INT "$child"
status=0
wait "$child" || status=$?
test "$status" = 1
grep -q "^draw: stopped after [0-9]* of 900 steps" err
test ! -e stopped.ppm

status=0
"$draw" /no-such-model x y.ppm 2>err || status=$?
test "$status" = 1
grep -q "/no-such-model" err
