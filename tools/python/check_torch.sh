#!/usr/bin/env bash
# check_torch.sh [VERSION...]: one build of the libraries under several versions of torch (2.2.2, 2.6.0 and the newest):
# a virtual environment for each in build/, several GB to fetch.  What tools/check --torch calls.
# ATTNPLUG_LIBRARY: another build. ATTNPLUG_TORCH_VENVS: a folder of environments that are there already, named by version.
set -euo pipefail
cd -- "$(dirname -- "$0")/../.."
versions=("$@")
[ ${#versions[@]} -gt 0 ] || versions=(2.2.2 2.6.0 newest)
venvs=${ATTNPLUG_TORCH_VENVS:-$PWD/build/torch}
export ATTNPLUG_LIBRARY=${ATTNPLUG_LIBRARY:-$PWD/build/libattnplug.so} OMP_WAIT_POLICY=passive
status=0
for version in "${versions[@]}"; do
    python=$venvs/$version/bin/python
    if [ ! -x "$python" ]; then
        python3 -m venv "$venvs/$version"
        pin="torch==$version" numpy='numpy<2' diffusers='diffusers==0.26.3 transformers==4.37.2 huggingface_hub<0.26 accelerate<1'
        [ "$version" != newest ] || pin=torch numpy=numpy diffusers='diffusers transformers accelerate'
        # shellcheck disable=SC2086 # several words
        "$python" -m pip install --quiet "$pin" "$numpy" $diffusers
    fi
    "$python" -m pip install --quiet wheel setuptools
    "$python" -m pip install --quiet --no-deps --no-build-isolation --force-reinstall tools/python/attnplug
    echo "== $("$python" -c 'import torch, numpy, sys; print("Python", sys.version.split()[0], "torch", torch.__version__, "numpy", numpy.__version__)')"
    for test in tests/test_attend.py tests/test_diffusers.py; do
        (cd tools/python/attnplug && "$python" -W ignore "$test") || status=1
    done
done
exit $status
