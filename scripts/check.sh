#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Everything that can be said about the sources without running them.
set -uo pipefail
cd "$(dirname "$0")/.."

failed=()
part() {
  local name=$1
  shift
  if "$@"; then
    printf 'check: %s: ok\n' "$name"
  else
    printf 'check: %s: FAILED\n' "$name"
    failed+=("$name")
  fi
}

cpp_sources() { git ls-files 'csrc/*.h' 'csrc/*.cc' 'tests/cpp/*.h' 'tests/cpp/*.cc' 'bench/*.h' 'bench/*.cc'; }

format_cpp() { cpp_sources | xargs clang-format --dry-run -Werror; }

licences() {
  local missing
  missing=$(git ls-files '*.py' '*.pyi' '*.h' '*.cc' '*.cu' '*.sh' '*.cmake' '*CMakeLists.txt' '*.proto' Makefile |
    xargs grep -L 'SPDX-License-Identifier: Apache-2.0')
  [[ -z $missing ]] || { printf 'no SPDX line in %s\n' $missing; return 1; }
}

# clang proves that guarded members are touched only under their locks.
lock_annotations() {
  mkdir -p build
  {
    cmake -S . -B build/clang -G Ninja -DCMAKE_CXX_COMPILER=clang++ -DGRISTMILL_BUILD_TESTS=ON \
      -DGRISTMILL_PYTHON="$PWD/.venv/bin/python" &&
      cmake --build build/clang -j "$(nproc)"
  } >build/clang.log 2>&1 || { cat build/clang.log; return 1; }
}

types() {
  .venv/bin/python scripts/generate_protos.py build/protos >/dev/null &&
    .venv/bin/python -m mypy server/gristmill clients/python/gristmill_client training scripts bench
}

part "Python lint" .venv/bin/ruff check --quiet .
part "Python format" .venv/bin/ruff format --check --quiet .
part "Python types" types
part "C++ format" format_cpp
part "include directions" .venv/bin/python scripts/check_includes.py
part "licence lines" licences
part "clang, lock annotations" lock_annotations

if ((${#failed[@]} > 0)); then
  printf 'check: FAILED: %s\n' "$(IFS=,; echo "${failed[*]}")"
  exit 1
fi
