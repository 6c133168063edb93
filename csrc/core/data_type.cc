// SPDX-License-Identifier: Apache-2.0
#include "core/data_type.h"

#include <array>

namespace gristmill {
namespace {

constexpr std::array<std::string_view, 15> kNames = {"INVALID", "BOOL", "UINT8", "UINT16", "UINT32",
                                                     "UINT64",  "INT8", "INT16", "INT32",  "INT64",
                                                     "FP16",    "FP32", "FP64",  "BYTES",  "BF16"};

}  // namespace

std::string_view DataTypeName(DataType type) { return kNames.at(static_cast<size_t>(type)); }

DataType ParseDataType(std::string_view name) {
  for (size_t i = 1; i < kNames.size(); ++i) {
    if (kNames[i] == name) return static_cast<DataType>(i);
  }
  return DataType::kInvalid;
}

}  // namespace gristmill
