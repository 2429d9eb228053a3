#!/bin/sh
# install.sh BUILD PREFIX HERE: installs into a folder, builds an engine and a plugin against it by pkg-config, runs
# them and the command with no environment variable of ours, then moves the whole folder and does it again.
set -eu
build=$1 prefix=$2 here=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bare() { env -i PATH="$PATH" HOME="$work/home" OMP_WAIT_POLICY=passive "$@"; }

consume() {
    root=$1$prefix
    PKG_CONFIG_PATH=$(dirname "$(find "$root" -name attnplug.pc)")
    export PKG_CONFIG_PATH
    # What a person types; flags are words.
    # shellcheck disable=SC2046
    cc -std=c11 -Wall -Werror -o "$work/engine" "$here/engine.c" $(pkg-config --cflags --libs attnplug) -lm \
        -Wl,-rpath,"$(pkg-config --variable=libdir attnplug)"
    [ "$(bare "$work/engine")" = attended ]

    # A vendor's plugin: the header by pkg-config, the file where the host looks.
    plugins=$(pkg-config --variable=plugindir attn-abi)
    # shellcheck disable=SC2046
    cc -O2 -shared -fPIC -fvisibility=hidden $(pkg-config --cflags attn-abi) -o "$plugins/naive.so" "$work/naive.c" -lm
    bare "$root/bin/attnplug" list >"$work/list"
    grep -q 'com.example.naive' "$work/list"
    grep -q 'org.attnplug.memory_efficient' "$work/list"

    bare "$root/bin/attnplug" sag --prompt 'red heart' --num-inference-steps 1 --output "$work/picture.png" 2>"$work/said" ||
        { cat "$work/said" >&2; exit 1; }
    [ -s "$work/picture.png" ]
    rm "$work/picture.png" "$plugins/naive.so"
    pkg-config --exists attnsag
}

mkdir "$work/home" "$work/first"
"$here/../engines/cut.sh" "$here/../../README.md" naive >"$work/naive.c"
meson install -C "$build" --no-rebuild --destdir "$work/first" >/dev/null
consume "$work/first"
mv "$work/first" "$work/second"
consume "$work/second"
