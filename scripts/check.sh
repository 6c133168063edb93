#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Everything that can be said about the sources without running them. Needs scripts/setup.sh check. Every part runs even
# if an earlier one fails, so that one call shows everything; the exit status is non-zero if any part failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh
PATH=$PWD/.venv/bin:$PATH

failed=()
part() {
  step "$@"
  # shellcheck disable=SC2181  # step is not for conditions
  (($? == 0)) || failed+=("$1")
}

# The files of the project that match, whether or not git knows them already.
files() { git ls-files -z --cached --others --exclude-standard -- "$@" | while IFS= read -r -d '' file; do
  [[ -f $file ]] && printf '%s\0' "$file"
done; }

cpp_format() { files '*.h' '*.cc' '*.cu' '*.cuh' | xargs -0 clang-format --dry-run -Werror; }

shell() { { files '*.sh'; printf '.ci/run\0'; } | xargs -0 shellcheck --external-sources; }

types() {
  python scripts/generate_protos.py build/protos
  python -m mypy server/gristmill clients/python/gristmill_client training bench scripts tests/scripts tests/docs
}

licences() {
  local without
  without=$(files '*.py' '*.pyi' '*.h' '*.cc' '*.cu' '*.cuh' '*.sh' '*.cmake' '*CMakeLists.txt' '*.proto' '*Makefile' .ci/run |
    xargs -0 awk 'FNR == 1 { if (NR > 1 && !found) print name; found = 0; name = FILENAME }
                  FNR <= 2 && /SPDX-License-Identifier: Apache-2.0/ { found = 1 }
                  END { if (!found) print name }')
  [[ -z $without ]] || die "no SPDX-License-Identifier: Apache-2.0 in the first two lines of: ${without//$'\n'/ }"
}

# clang proves that guarded members are touched under their locks only, and warns of what gcc does not see.
clang() {
  cmake -S . -B build/clang -G Ninja -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_BUILD_TYPE=Debug \
    -DGRISTMILL_BUILD_TESTS=ON -DGRISTMILL_PYTHON="$PWD/.venv/bin/python"
  cmake --build build/clang -j "$(nproc)"
}

part "Python lint" ruff check .
part "Python format" ruff format --check .
part "Python types" types
part "C++ format" cpp_format
part "include directions" python scripts/check_includes.py
part "licence lines" licences
part "shell scripts" shell
part "clang with lock annotations" clang

if ((${#failed[@]} > 0)); then
  printf 'make check: FAILED: %s\n' "$(IFS=,; echo "${failed[*]}")"
  exit 1
fi
printf 'make check: everything passed\n'
