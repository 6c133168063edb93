// SPDX-License-Identifier: Apache-2.0
// WireReader: walks the fields of one serialized protobuf message without copying or trusting it.
//
// Errors: a reader that meets bytes which are no message goes bad: Next returns false and ok() is false from then on.
// Ownership: borrows the bytes; spans handed out point into them.
//
//   WireReader reader(bytes);
//   while (reader.Next()) {
//     if (reader.Is(1, WireType::kBytes)) name = reader.bytes();
//   }
//   if (!reader.ok()) …
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace gristmill {

enum class WireType : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kStartGroup = 3, kEndGroup = 4, kFixed32 = 5 };

/// Reads one varint and moves `*at` past it. False when it does not end before `end` or is longer than `max_bytes`.
bool ReadLongVarint(const std::byte** at, const std::byte* end, int max_bytes, uint64_t* value);

inline bool ReadVarint(const std::byte** at, const std::byte* end, uint64_t* value, int max_bytes = 10) {
  if (*at == end || **at >= std::byte{0x80}) return ReadLongVarint(at, end, max_bytes, value);
  *value = static_cast<uint64_t>(*(*at)++);  // most are of one byte
  return true;
}

class WireReader {
 public:
  explicit WireReader(std::span<const std::byte> message)
      : at_(message.data()), end_(message.data() + message.size()) {}

  /// Moves to the next field and reads its value. False at the end of the message and on damage.
  bool Next();

  bool ok() const { return ok_; }
  uint32_t field() const { return field_; }
  WireType type() const { return type_; }
  bool Is(uint32_t field, WireType type) const { return field_ == field && type_ == type; }

  /// The value of a kVarint field.
  uint64_t number() const { return number_; }
  /// The contents of a kBytes field, or the 4 or 8 bytes of a fixed one.
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  bool SkipGroup(uint32_t field, int depth);
  bool ReadValue(WireType type);
  bool Fail() {
    ok_ = false;
    return false;
  }

  const std::byte* at_;
  const std::byte* end_;
  bool ok_ = true;
  uint32_t field_ = 0;
  WireType type_ = WireType::kVarint;
  uint64_t number_ = 0;
  std::span<const std::byte> bytes_;
};

}  // namespace gristmill
