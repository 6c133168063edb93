#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# All tests: C++ under two sets of sanitizers, the fuzz targets for a bounded time, then Python. Needs scripts/setup.sh
# test. Every part runs even if an earlier one fails, so that one call shows everything; the exit status is non-zero if
# any part failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh
PATH=$PWD/.venv/bin:$PATH

readonly tests_passed='tests passed,.*tests failed'
failed=() closing=()

# part CLOSING_LINE WHAT COMMAND...: one step; the last line of its output that matches goes into the summary.
part() {
  local pattern=$1 what=$2 verdict=ok line
  shift
  step "$@"
  # shellcheck disable=SC2181  # step is not for conditions
  (($? == 0)) || { verdict=FAILED; failed+=("$what"); }
  line=$(grep -E "$pattern" "$(log_of "$what")" | tail -n 1)
  closing+=("$(printf '%-7s %-26s %s' "$verdict" "$what" "${line:-no closing line}")")
}

# build DIRECTORY CMAKE_OPTION...: optimised a little, which sanitizers need to be quick, and with assertions.
build() {
  local directory=$1
  shift
  cmake -S . -B "$directory" -G Ninja -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG=-O1 \
    -DGRISTMILL_PYTHON="$PWD/.venv/bin/python" "$@"
  cmake --build "$directory" -j "$(nproc)"
}

# run_tests DIRECTORY: fails if any test fails. What failed runs once more, whatever comes of it, so that its output is at
# the end of the log.
run_tests() {
  ctest --test-dir "$1" && return 0
  ctest --test-dir "$1" --rerun-failed --output-on-failure || true
  return 1
}

memory_and_behaviour() {
  build build/asan -DGRISTMILL_BUILD_TESTS=ON -DGRISTMILL_SANITIZE=address,undefined
  run_tests build/asan
}

# Older ThreadSanitizers fail on kernels that randomise more address bits than they know; where the kernel lets us, it is
# told not to. The build runs the tests too, to list them.
threads() {
  local fixed_addresses=()
  setarch "$(uname -m)" -R true && fixed_addresses=(setarch "$(uname -m)" -R)
  export -f build run_tests
  "${fixed_addresses[@]}" bash -euo pipefail -c \
    'build build/tsan -DGRISTMILL_BUILD_TESTS=ON -DGRISTMILL_SANITIZE=thread; run_tests build/tsan'
}

# Verbose, for the number of inputs that were tried.
fuzz() {
  build build/fuzz -DCMAKE_CXX_COMPILER=clang++ -DGRISTMILL_BUILD_FUZZERS=ON -DGRISTMILL_SANITIZE=address,undefined
  ctest --test-dir build/fuzz --verbose
}

train() { python -m training.all --repository model_repo --if-missing && echo "every sample model is there"; }

part "$tests_passed" "C++ under ASan and UBSan" memory_and_behaviour
part "$tests_passed" "C++ under TSan" threads
part 'Done [0-9]+ runs' "fuzzing" fuzz
part 'every sample model' "sample models" train
part '^=+ .* in [0-9.]+s' "Python" python -m pytest

printf '\n'
printf '%s\n' "${closing[@]}"
if ((${#failed[@]} > 0)); then
  printf 'make test: FAILED: %s\n' "$(IFS=,; echo "${failed[*]}")"
  exit 1
fi
printf 'make test: everything passed\n'
