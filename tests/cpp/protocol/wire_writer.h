// SPDX-License-Identifier: Apache-2.0
// Builds protobuf wire bytes by hand, so that tests can make what no well-behaved encoder would.
#pragma once

#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>
#include <string_view>

namespace gristmill {

class WireWriter {
 public:
  WireWriter& Varint(uint32_t field, uint64_t value) {
    PutVarint(field << 3);
    PutVarint(value);
    return *this;
  }
  WireWriter& Bytes(uint32_t field, std::string_view value) {
    PutVarint(field << 3 | 2);
    PutVarint(value.size());
    text_ += value;
    return *this;
  }
  WireWriter& Message(uint32_t field, const WireWriter& message) { return Bytes(field, message.text()); }
  WireWriter& Packed(uint32_t field, std::initializer_list<int64_t> values) {
    WireWriter packed;
    for (int64_t value : values) packed.PutVarint(static_cast<uint64_t>(value));
    return Bytes(field, packed.text());
  }
  template <typename T>
  WireWriter& PackedFixed(uint32_t field, std::initializer_list<T> values) {
    std::string packed;
    for (T value : values) packed.append(reinterpret_cast<const char*>(&value), sizeof value);
    return Bytes(field, packed);
  }
  template <typename T>
  WireWriter& Fixed(uint32_t field, T value) {
    PutVarint(field << 3 | (sizeof(T) == 4 ? 5 : 1));
    text_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  WireWriter& Raw(std::string_view bytes) {
    text_ += bytes;
    return *this;
  }
  const std::string& text() const { return text_; }

 private:
  void PutVarint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) text_ += static_cast<char>(value | 0x80);
    text_ += static_cast<char>(value);
  }

  std::string text_;
};

}  // namespace gristmill
