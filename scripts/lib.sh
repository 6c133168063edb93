# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What the scripts beside this one share; to be sourced in the repository's root.

readonly log_directory=build/logs

have() { command -v "$1" >/dev/null; }

die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# Prints the file that has the output of step WHAT.
log_of() { printf '%s/%s.log' "$log_directory" "$(printf '%s' "${1%% (*}" | tr -cs '[:alnum:]' '-')"; }

# step WHAT COMMAND...: runs COMMAND in silence, between a line that says what is going on and one that says how long it
# took. If COMMAND fails, so does step, after the end of its output and the name of the file that has all of it. Not for
# use in a condition, where bash would ignore what fails inside a function.
step() {
  local what=$1 name=${1%% (*} began=$SECONDS options=$- status log
  shift
  mkdir -p "$log_directory"
  log=$(log_of "$what")
  printf '%s: %s ...\n' "${0##*/}" "$what"
  set +e
  (set -e; "$@") >"$log" 2>&1 </dev/null
  status=$?
  [[ $options == *e* ]] && set -e
  if ((status != 0)); then
    tail -n 100 "$log"
    printf '%s: %s FAILED after %d s; all of its output: %s\n' "${0##*/}" "$name" $((SECONDS - began)) "$log"
    return "$status"
  fi
  printf '%s: %s: %d s\n' "${0##*/}" "$name" $((SECONDS - began))
}
