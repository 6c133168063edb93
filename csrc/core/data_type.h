// SPDX-License-Identifier: Apache-2.0
// DataType: the element types of the KServe v2 protocol.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace gristmill {

enum class DataType : uint8_t {
  kInvalid = 0,
  kBool,
  kUint8,
  kUint16,
  kUint32,
  kUint64,
  kInt8,
  kInt16,
  kInt32,
  kInt64,
  kFp16,
  kFp32,
  kFp64,
  kBytes,
  kBf16,
};

/// Bytes per element; 0 for kBytes, whose elements have lengths of their own, and for kInvalid.
constexpr size_t ElementSizeBytes(DataType type) {
  switch (type) {
    case DataType::kBool:
    case DataType::kUint8:
    case DataType::kInt8:
      return 1;
    case DataType::kUint16:
    case DataType::kInt16:
    case DataType::kFp16:
    case DataType::kBf16:
      return 2;
    case DataType::kUint32:
    case DataType::kInt32:
    case DataType::kFp32:
      return 4;
    case DataType::kUint64:
    case DataType::kInt64:
    case DataType::kFp64:
      return 8;
    case DataType::kBytes:
    case DataType::kInvalid:
      return 0;
  }
  return 0;
}

/// The protocol's name, "FP32" say; "INVALID" for kInvalid.
std::string_view DataTypeName(DataType type);

/// The type of a protocol name, exactly as written; kInvalid for any other text.
DataType ParseDataType(std::string_view name);

}  // namespace gristmill
