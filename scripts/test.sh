#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# All tests: C++ under ASan and UBSan, C++ under TSan, the fuzz targets for a bounded time, then Python. Every part runs even
# if an earlier one failed, so that one run shows everything; the exit status is non-zero if any part failed.
set -uo pipefail
cd "$(dirname "$0")/.."

failed=()
jobs=$(nproc)

part() {
  local name=$1 began=$SECONDS
  shift
  printf '\n== %s\n' "$name"
  if "$@"; then
    printf '== %s: passed in %s s\n' "$name" $((SECONDS - began))
  else
    printf '== %s: FAILED after %s s\n' "$name" $((SECONDS - began))
    failed+=("$name")
  fi
}

# cpp DIRECTORY CMAKE_OPTION...: configures, builds and runs what ctest finds there.
cpp() {
  local directory=$1
  shift
  cmake -S . -B "$directory" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DGRISTMILL_PYTHON="$PWD/.venv/bin/python" "$@" \
    >"$directory.log" 2>&1 || { cat "$directory.log"; return 1; }
  cmake --build "$directory" -j "$jobs" >"$directory.log" 2>&1 || { cat "$directory.log"; return 1; }
  ctest --test-dir "$directory" --output-on-failure --progress -j "$jobs"
}

mkdir -p build
part "C++ under ASan and UBSan" cpp build/asan -DGRISTMILL_BUILD_TESTS=ON -DGRISTMILL_SANITIZE=address,undefined
part "C++ under TSan" cpp build/tsan -DGRISTMILL_BUILD_TESTS=ON -DGRISTMILL_SANITIZE=thread
part "fuzzing" cpp build/fuzz -DCMAKE_CXX_COMPILER=clang++ -DGRISTMILL_BUILD_FUZZERS=ON \
  -DGRISTMILL_SANITIZE=address,undefined
part "sample models" .venv/bin/python -m training.all --repository model_repo --if-missing
part "Python" .venv/bin/python -m pytest

if ((${#failed[@]} > 0)); then
  printf '\nFAILED: %s\n' "$(IFS=,; echo "${failed[*]}")"
  exit 1
fi
printf '\nall parts passed\n'
