#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Puts ONNX Runtime's C headers into DEST (default .cache/onnxruntime/include), out of Debian's libonnxruntime-dev.
#
#   scripts/fetch_onnxruntime_headers.sh [DEST]
#
# Nothing is installed and root is not needed: the package is downloaded and unpacked with a private apt configuration.
# That configuration is made from the machine's own distribution sources, so mirrors and proxies stay in force. Debian
# releases that lack the package get their suite replaced by trixie, the first one to have it. Done before: returns at
# once. Exit status: 0 done, 1 the headers cannot be had this way (the message says what to do instead).
set -euo pipefail

readonly PACKAGE=libonnxruntime-dev HEADER=onnxruntime_c_api.h FIRST_DEBIAN_SUITE=trixie

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dest=${1:-$root/.cache/onnxruntime/include}
if [[ -f $dest/$HEADER ]]; then
  exit 0
fi

fail() {
  cat >&2 <<MESSAGE
$0: $1
The ONNX Runtime backend needs $HEADER (ONNX Runtime 1.21 or newer). Take it from any ONNX Runtime release's include
directory, and either put it into $dest or configure with -DONNXRUNTIME_INCLUDE_DIR=<its directory>.
MESSAGE
  exit 1
}

for tool in apt-get apt-cache dpkg-deb awk; do
  command -v "$tool" >/dev/null || fail "expected a Debian or Ubuntu machine, but there is no $tool here"
done

private=$(mktemp -d)
trap 'rm -rf "$private"' EXIT
chmod 755 "$private"  # apt downloads as its own user
mkdir -p "$private"/{sources,lists/partial,archives/partial,download,tree}

# The distribution's own entries of one-line .list files on stdin, with suite $1 replaced by $2. Third parties are told
# by their suites, components and keys.
list_entries() {
  awk -v own="$1" -v suite="$2" '
    $1 != "deb" { next }
    {
      options = ""
      line = $0
      if (match(line, /\[[^]]*\]/)) {
        options = substr(line, RSTART, RLENGTH)
        line = substr(line, 1, RSTART - 1) substr(line, RSTART + RLENGTH)
      }
      if (options ~ /signed-by=/ && options !~ /(debian|ubuntu)-archive/) next
      count = split(line, field, " ")
      distribution = 0
      for (i = 4; i <= count; i++) if (field[i] == "main" || field[i] == "universe") distribution = 1
      if (!distribution || field[3] != own) next
      printf "deb %s %s %s", options, field[2], suite
      for (i = 4; i <= count && field[i] !~ /^#/; i++) printf " %s", field[i]
      print ""
    }'
}

# The same for deb822 .sources files: one stanza per paragraph.
sources_entries() {
  awk -v own="$1" -v suite="$2" '
    function flush_stanza(   mine) {
      mine = (" " suites " ") ~ (" " own " ") && types ~ /(^| )deb( |$)/ && components ~ /(^| )(main|universe)( |$)/
      if (mine && enabled !~ /^(no|false|0)/ && (key == "" || key ~ /(debian|ubuntu)-archive/ || key ~ /BEGIN PGP/)) {
        printf "Types: deb\nURIs: %s\nSuites: %s\nComponents: %s\n", uris, suite, components
        if (key != "") printf "Signed-By: %s\n", key
        print ""
      }
      types = uris = suites = components = key = enabled = field = ""
    }
    /^[ \t]*$/ { flush_stanza(); next }
    /^#/ { next }
    /^[ \t]/ { value = $0; continued = 1 }
    /^[^ \t#]/ {
      continued = 0
      field = tolower(substr($0, 1, index($0, ":") - 1))
      value = substr($0, index($0, ":") + 1)
      sub(/^[ \t]+/, "", value)
    }
    {
      if (field == "types") types = types " " value
      else if (field == "uris") uris = uris " " value
      else if (field == "suites") suites = suites " " value
      else if (field == "components") components = components " " value
      else if (field == "signed-by") key = key (continued ? "\n" : "") value
      else if (field == "enabled") enabled = value
    }
    END { flush_stanza() }'
}

# Writes the private sources. $1: the suite to look in, $2: the machine's own suite.
write_sources() {
  local file
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    [[ -r $file ]] && list_entries "$2" "$1" <"$file"
  done >"$private/sources/distribution.list" || true
  for file in /etc/apt/sources.list.d/*.sources; do
    [[ -r $file ]] && { sources_entries "$2" "$1" <"$file"; echo; }
  done >"$private/sources/distribution.sources" || true
}

private_apt=(
  -o "Dir::Etc::SourceList=/dev/null" -o "Dir::Etc::SourceParts=$private/sources"
  -o "Dir::Etc::Preferences=/dev/null" -o "Dir::Etc::PreferencesParts=/dev/null"
  -o "Dir::State::Lists=$private/lists" -o "Dir::Cache::Archives=$private/archives"
  -o "Dir::Cache::PkgCache=" -o "Dir::Cache::SrcPkgCache=" -o "Acquire::Languages=none"
  -o "APT::Update::Post-Invoke=" -o "APT::Update::Post-Invoke-Success="
)

# Downloads the package into $private/download, with the apt options given.
download() {
  (cd "$private/download" && apt-get "$@" -qq download "$PACKAGE" 2>"$private/error")
}

# shellcheck source=/dev/null
. /etc/os-release
own_suite=${VERSION_CODENAME:-}
if apt-cache show "$PACKAGE" >/dev/null 2>&1 && download; then
  :  # the machine's own package lists have it
else
  suite=$own_suite
  case $own_suite in
    buster | bullseye | bookworm) suite=$FIRST_DEBIAN_SUITE ;;
  esac
  [[ -n $suite ]] || fail "cannot tell this distribution's release: /etc/os-release has no VERSION_CODENAME"
  write_sources "$suite" "$own_suite"
  if ! grep -q . "$private"/sources/*; then
    fail "found no source of the distribution itself (suite $own_suite, component main) under /etc/apt"
  fi
  apt-get "${private_apt[@]}" -qq update 2>"$private/error" ||
    fail "apt-get update for suite $suite failed: $(cat "$private/error")"
  download "${private_apt[@]}" || fail "suite $suite has no $PACKAGE to download: $(cat "$private/error")"
fi

dpkg-deb -x "$private"/download/*.deb "$private/tree"
header=$(find "$private/tree" -name "$HEADER" -print -quit)
[[ -n $header ]] || fail "the package $PACKAGE of this distribution holds no $HEADER"
mkdir -p "$dest"
# The header that marks the job as done comes last.
find "$(dirname "$header")" -maxdepth 1 -name '*_c_api.h' ! -name "$HEADER" -exec cp -t "$dest" {} +
cp "$header" "$dest/.$HEADER.$$" && mv "$dest/.$HEADER.$$" "$dest/$HEADER"
