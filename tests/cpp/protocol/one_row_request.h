// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "protocol/wire_writer.h"

namespace gristmill {

/// A serialized ModelInferRequest with one FP32[1,1] input.
inline std::string OneRowRequest(const std::string& model, const std::string& input, float x) {
  const auto tensor = WireWriter().Bytes(1, input).Bytes(2, "FP32").Packed(3, {1, 1});
  return WireWriter().Bytes(1, model).Message(5, tensor).Bytes(7, {reinterpret_cast<const char*>(&x), sizeof x}).text();
}

}  // namespace gristmill
