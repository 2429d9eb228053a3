#!/usr/bin/env bash
# run.sh [--bench]: builds a real ggml (the one inside the source package of llama-cpp-python, 77 MB to fetch) and
# tests attn_ggml.h against it, as C and as C++.  Wants cmake, ninja, a C++ compiler, pip; and build/ built.
set -euo pipefail
cd -- "$(dirname -- "$0")/../../.."
root=$PWD work=$PWD/build/ggml version=0.3.36
source=$work/llama_cpp_python-$version/vendor/llama.cpp/ggml
mkdir -p "$work"
if [ ! -d "$source" ]; then
    (cd "$work" && python3 -m pip download --quiet --no-deps --no-binary :all: "llama-cpp-python==$version" &&
        tar xzf "llama_cpp_python-$version.tar.gz" "llama_cpp_python-$version/vendor/llama.cpp/ggml" &&
        rm "llama_cpp_python-$version.tar.gz")
    touch "$source/ggml.pc.in" # the package leaves it out and CMakeLists.txt asks for it
fi
if [ ! -f "$work/lib/src/libggml.so" ]; then
    cmake -S "$source" -B "$work/lib" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON -DGGML_NATIVE=ON \
        -DGGML_BUILD_TESTS=OFF -DGGML_BUILD_EXAMPLES=OFF >"$work/cmake.log"
    ninja -C "$work/lib" --quiet
fi
flags=(-O2 -Wall -Wextra -Werror -D_GNU_SOURCE "-I$root/abi" "-I$source/include")
libraries=("-L$work/lib/src" -lggml -lggml-base -lggml-cpu -lm -ldl "-Wl,-rpath,$work/lib/src")
cc -std=c11 "${flags[@]}" -o "$work/test_ggml" tests/engines/ggml/test_ggml.c "${libraries[@]}"
printf '#include "attn_ggml.h"\nint main() { return attn_ggml_attend == 0; }\n' >"$work/header.cc"
c++ -std=c++11 "${flags[@]}" -Wno-address -Itests/engines/ggml -o "$work/header" "$work/header.cc" "${libraries[@]}"
OMP_WAIT_POLICY=passive "$work/test_ggml" "$root/build/attnplug/v1/memory_efficient.so" "$@"
