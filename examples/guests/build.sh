#!/usr/bin/env bash
# Builds the example guests: WebAssembly modules for WASI preview 1, from C.
#
#     examples/guests/build.sh [DIRECTORY]      (target/guests, if none is named)
#
# Needs Debian's (or Ubuntu's) clang, lld and wasi-libc; says which packages are missing.
# CLANG names another clang, WASI_SYSROOT another C library (as the wasi-sdk has both).
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
out="${1:-$here/../../target/guests}"
clang="${CLANG:-clang}"
flags=(--target=wasm32-wasi -std=c11 -O2 -Wall -Wextra -Werror -Wl,--strip-all -Wl,--fatal-warnings)
if [[ -n "${WASI_SYSROOT:-}" ]]; then
  flags+=("--sysroot=$WASI_SYSROOT")
fi

scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
# Uses the headers, the C library, and 128-bit arithmetic from the compiler's runtime.
printf '#include <stdio.h>\nint main(int c, char **v) { (void)v; __int128 n = c; n *= n; %s }\n' \
  'return printf("%d", (int)(n / (c + 1)));' >"$scratch/probe.c"
if ! "$clang" "${flags[@]}" -o "$scratch/probe.wasm" "$scratch/probe.c" 2>"$scratch/messages"; then
  sed 's/^/  /' "$scratch/messages" >&2
  echo "build.sh: $clang cannot build for WASI. On Debian and Ubuntu:" >&2
  echo "  apt-get install --no-install-recommends clang lld wasi-libc libclang-rt-dev-wasm32" >&2
  exit 69 # what sysexits.h calls "unavailable": the tests tell it from a broken guest
fi

mkdir -p "$out"
for source in "$here"/*.c; do
  name="$(basename "$source" .c)"
  "$clang" "${flags[@]}" -o "$scratch/$name.wasm" "$source"
  mv "$scratch/$name.wasm" "$out/$name.wasm" # whole, or not at all
  printf '%s\t%s bytes\n' "$out/$name.wasm" "$(wc -c <"$out/$name.wasm")"
done
