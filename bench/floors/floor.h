// SPDX-License-Identifier: Apache-2.0
// What all floors share: how they end, and how they read the reply that they give.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

namespace floors {

[[noreturn]] inline void Die(const std::string& message) {
  std::fprintf(stderr, "floor: %s\n", message.c_str());
  std::exit(1);
}

// Ends the process if the file cannot be read.
inline std::string ReadFile(const char* path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) Die(std::string("cannot read ") + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace floors
