// SPDX-License-Identifier: Apache-2.0
#include "protocol/typed_contents.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <string_view>

#include "protocol/wire_reader.h"

namespace gristmill {
namespace {

constexpr uint32_t kContentsField = 5;  // of InferInputTensor

/// The field of InferTensorContents that carries a type; 0 for types without a typed form.
uint32_t FieldOf(DataType dtype) {
  switch (dtype) {
    case DataType::kBool:
      return 1;
    case DataType::kInt8:
    case DataType::kInt16:
    case DataType::kInt32:
      return 2;
    case DataType::kInt64:
      return 3;
    case DataType::kUint8:
    case DataType::kUint16:
    case DataType::kUint32:
      return 4;
    case DataType::kUint64:
      return 5;
    case DataType::kFp32:
      return 6;
    case DataType::kFp64:
      return 7;
    case DataType::kBytes:
      return 8;
    case DataType::kFp16:
    case DataType::kBf16:
    case DataType::kInvalid:
      return 0;
  }
  return 0;
}

constexpr std::string_view kFieldNames[] = {"",
                                            "bool_contents",
                                            "int_contents",
                                            "int64_contents",
                                            "uint_contents",
                                            "uint64_contents",
                                            "fp32_contents",
                                            "fp64_contents",
                                            "bytes_contents"};

/// Whether the wire type is one of the field's: its own or, but for bytes, packed. Any other makes it an unknown field.
bool IsContentsField(const WireReader& field) {
  if (field.type() == WireType::kBytes) return field.field() >= 1 && field.field() <= 8;
  return (field.type() == WireType::kVarint && field.field() <= 5) || field.Is(6, WireType::kFixed32) ||
         field.Is(7, WireType::kFixed64);
}

/// Calls `visit(reader)` on every known field of every contents message: several such messages mean their
/// concatenation.
template <typename Visit>
bool ForEachField(std::span<const std::byte> input_message, Visit&& visit) {
  WireReader input(input_message);
  while (input.Next()) {
    if (!input.Is(kContentsField, WireType::kBytes)) continue;
    WireReader contents(input.bytes());
    while (contents.Next()) {
      if (IsContentsField(contents) && !visit(contents)) return false;
    }
    if (!contents.ok()) return false;
  }
  return input.ok();
}

/// Calls `visit(value)` on every varint of a field, packed or not.
template <typename Visit>
bool ForEachVarint(const WireReader& field, Visit&& visit) {
  if (field.type() == WireType::kVarint) return visit(field.number());
  const std::byte* at = field.bytes().data();
  const std::byte* const end = at + field.bytes().size();
  while (at != end) {
    uint64_t value = 0;
    if (!ReadVarint(&at, end, &value) || !visit(value)) return false;
  }
  return true;
}

/// Whether the value of a varint field, as protobuf narrows it to the field's type, fits the tensor's type.
template <typename Wire, typename Element>
bool Narrow(uint64_t value, Element* element) {
  const Wire wire = static_cast<Wire>(value);
  if (wire < std::numeric_limits<Element>::min() || wire > std::numeric_limits<Element>::max()) return false;
  *element = static_cast<Element>(wire);
  return true;
}

class Decoder {
 public:
  Decoder(std::span<const std::byte> message, BufferPool* pool, std::vector<Buffer>* decoded, TensorView* tensor)
      : message_(message), pool_(*pool), decoded_(*decoded), tensor_(*tensor) {}

  Status Decode() {
    field_ = FieldOf(tensor_.dtype);
    if (field_ == 0) {
      return InvalidArgument(std::string(DataTypeName(tensor_.dtype)) +
                             " has no typed contents; send it in raw_input_contents");
    }
    if (Status status = Count(); !status.ok()) return status;
    if (count_ != static_cast<uint64_t>(tensor_.shape.ElementCount())) {
      return InvalidArgument("shape " + tensor_.shape.ToString() + " has " +
                             std::to_string(tensor_.shape.ElementCount()) + " elements but contents has " +
                             std::to_string(count_));
    }
    if (TryView()) return Status::Ok();
    return Write();
  }

 private:
  /// Counts elements and chunks, and refuses elements in a field of another type.
  Status Count() {
    uint32_t wrong_field = 0;
    const bool read = ForEachField(message_, [&](const WireReader& field) {
      if (field.field() != field_) {
        wrong_field = field.field();
        return field.type() == WireType::kBytes && field.bytes().empty();  // an empty packed field holds nothing
      }
      ++chunks_;
      return CountChunk(field);
    });
    if (read) return Status::Ok();
    if (wrong_field != 0) {
      return InvalidArgument(std::string(DataTypeName(tensor_.dtype)) + " elements belong in " +
                             std::string(kFieldNames[field_]) + " but came in " +
                             std::string(kFieldNames[wrong_field]));
    }
    return InvalidArgument("contents is damaged: " + std::string(kFieldNames[field_]) + " does not decode");
  }

  bool CountChunk(const WireReader& field) {
    if (tensor_.dtype == DataType::kBytes) {
      size_bytes_ += 4 + field.bytes().size();
      ++count_;
      return true;
    }
    const size_t element_bytes = ElementSizeBytes(tensor_.dtype);
    if (tensor_.dtype == DataType::kFp32 || tensor_.dtype == DataType::kFp64) {
      if (field.bytes().size() % element_bytes != 0) return false;
      count_ += field.bytes().size() / element_bytes;
      chunk_ = field.bytes();
    } else {
      const bool read = ForEachVarint(field, [&](uint64_t) {
        ++count_;
        return true;
      });
      if (!read) return false;
      chunk_ = field.type() == WireType::kBytes ? field.bytes() : std::span<const std::byte>();
    }
    size_bytes_ = count_ * element_bytes;
    return true;
  }

  /// Whether the one chunk is the raw form already.
  bool TryView() {
    if (chunks_ > 1 || chunk_.size() != size_bytes_) return chunks_ == 0 && size_bytes_ == 0;
    const bool is_raw = tensor_.dtype == DataType::kFp32 || tensor_.dtype == DataType::kFp64 ||
                        (tensor_.dtype == DataType::kBool &&
                         std::ranges::all_of(chunk_, [](std::byte b) { return b <= std::byte{1}; }));
    if (is_raw) tensor_.data = chunk_;
    return is_raw;
  }

  Status Write() {
    Buffer buffer = pool_.Acquire(size_bytes_);
    out_ = buffer.data();
    const bool written =
        ForEachField(message_, [&](const WireReader& field) { return field.field() != field_ || WriteChunk(field); });
    if (!written) {
      return InvalidArgument(std::string(kFieldNames[field_]) + " has an element that is out of range for " +
                             std::string(DataTypeName(tensor_.dtype)));
    }
    tensor_.data = buffer.view();
    decoded_.push_back(std::move(buffer));
    return Status::Ok();
  }

  bool WriteChunk(const WireReader& field) {
    switch (tensor_.dtype) {
      case DataType::kBool:
        return WriteVarints<uint64_t, uint8_t>(field, [](uint64_t value) { return value != 0 ? 1u : 0u; });
      case DataType::kInt8:
        return WriteVarints<int32_t, int8_t>(field);
      case DataType::kInt16:
        return WriteVarints<int32_t, int16_t>(field);
      case DataType::kInt32:
        return WriteVarints<int32_t, int32_t>(field);
      case DataType::kInt64:
        return WriteVarints<int64_t, int64_t>(field);
      case DataType::kUint8:
        return WriteVarints<uint32_t, uint8_t>(field);
      case DataType::kUint16:
        return WriteVarints<uint32_t, uint16_t>(field);
      case DataType::kUint32:
        return WriteVarints<uint32_t, uint32_t>(field);
      case DataType::kUint64:
        return WriteVarints<uint64_t, uint64_t>(field);
      case DataType::kBytes: {
        const auto length = static_cast<uint32_t>(field.bytes().size());
        Append(&length, sizeof length);
        Append(field.bytes().data(), field.bytes().size());
        return true;
      }
      default:
        Append(field.bytes().data(), field.bytes().size());
        return true;
    }
  }

  template <typename Wire, typename Element, typename Map = std::identity>
  bool WriteVarints(const WireReader& field, Map map = {}) {
    return ForEachVarint(field, [&](uint64_t value) {
      Element element{};
      if (!Narrow<Wire>(map(value), &element)) return false;
      Append(&element, sizeof element);
      return true;
    });
  }

  void Append(const void* data, size_t size) {
    if (size > 0) std::memcpy(out_, data, size);
    out_ += size;
  }

  const std::span<const std::byte> message_;
  BufferPool& pool_;
  std::vector<Buffer>& decoded_;
  TensorView& tensor_;
  uint32_t field_ = 0;
  size_t chunks_ = 0;
  uint64_t count_ = 0;
  size_t size_bytes_ = 0;
  std::span<const std::byte> chunk_;  // the last one
  std::byte* out_ = nullptr;
};

}  // namespace

Status DecodeTypedContents(std::span<const std::byte> input_message, BufferPool* pool, std::vector<Buffer>* decoded,
                           TensorView* tensor) {
  return Decoder(input_message, pool, decoded, tensor).Decode();
}

}  // namespace gristmill
