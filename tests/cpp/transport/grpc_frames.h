// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace gristmill {

/// A message with gRPC's prefix: not compressed, its length, its bytes.
inline std::string GrpcFrame(const std::string& message) {
  std::string frame(1, '\0');
  const auto length = static_cast<uint32_t>(message.size());
  for (int shift = 24; shift >= 0; shift -= 8) frame += static_cast<char>(length >> shift);
  return frame + message;
}

}  // namespace gristmill
