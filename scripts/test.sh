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

# build DIRECTORY CMAKE_OPTION...
build() {
  local directory=$1
  shift
  cmake -S . -B "$directory" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DGRISTMILL_PYTHON="$PWD/.venv/bin/python" "$@"
  cmake --build "$directory" -j "$(nproc)"
}

memory_and_behaviour() {
  build build/asan -DGRISTMILL_BUILD_TESTS=ON -DGRISTMILL_SANITIZE=address,undefined
  ctest --test-dir build/asan --output-on-failure -j "$(nproc)"
}

# Older ThreadSanitizers fail on kernels that randomise more address bits than they know; where the kernel lets us, it is
# told not to. The build runs the tests too, to list them.
threads() {
  local fixed_addresses=()
  setarch "$(uname -m)" -R true && fixed_addresses=(setarch "$(uname -m)" -R)
  export -f build
  "${fixed_addresses[@]}" bash -e -c 'build build/tsan -DGRISTMILL_BUILD_TESTS=ON -DGRISTMILL_SANITIZE=thread'
  "${fixed_addresses[@]}" ctest --test-dir build/tsan --output-on-failure -j "$(nproc)"
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
