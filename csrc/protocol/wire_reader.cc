// SPDX-License-Identifier: Apache-2.0
#include "protocol/wire_reader.h"

namespace gristmill {
namespace {

constexpr int kMaxGroupDepth = 64;

/// Tags and lengths are numbers of 32 bits.
bool ReadVarint32(const std::byte** at, const std::byte* end, uint64_t* value) {
  return ReadVarint(at, end, value, 5) && *value <= UINT32_MAX;
}

bool ReadTag(const std::byte** at, const std::byte* end, uint64_t* tag) {
  return ReadVarint32(at, end, tag) && (*tag >> 3) != 0;
}

}  // namespace

bool ReadLongVarint(const std::byte** at, const std::byte* end, int max_bytes, uint64_t* value) {
  uint64_t result = 0;
  for (int shift = 0; shift < 7 * max_bytes; shift += 7) {
    if (*at == end) return false;
    const auto byte = static_cast<uint64_t>(*(*at)++);
    if (shift < 64) result |= (byte & 0x7f) << shift;
    if (byte < 0x80) {
      *value = result;
      return true;
    }
  }
  return false;
}

bool WireReader::Next() {
  if (!ok_ || at_ == end_) return false;
  uint64_t tag = 0;
  if (!ReadTag(&at_, end_, &tag)) return Fail();
  field_ = static_cast<uint32_t>(tag >> 3);
  type_ = static_cast<WireType>(tag & 7);
  if (type_ == WireType::kStartGroup) {
    const bool skipped = SkipGroup(field_, 0);
    bytes_ = {};  // not the last value within the group
    number_ = 0;
    return skipped || Fail();
  }
  return ReadValue(type_) || Fail();
}

bool WireReader::ReadValue(WireType type) {
  switch (type) {
    case WireType::kVarint:
      return ReadVarint(&at_, end_, &number_);
    case WireType::kFixed64:
    case WireType::kFixed32: {
      const size_t size = type == WireType::kFixed64 ? 8 : 4;
      if (static_cast<size_t>(end_ - at_) < size) return false;
      bytes_ = {at_, size};
      at_ += size;
      return true;
    }
    case WireType::kBytes: {
      uint64_t size = 0;
      if (!ReadVarint32(&at_, end_, &size) || size > static_cast<uint64_t>(end_ - at_)) return false;
      bytes_ = {at_, static_cast<size_t>(size)};
      at_ += size;
      return true;
    }
    case WireType::kStartGroup:
    case WireType::kEndGroup:
      return false;
  }
  return false;
}

bool WireReader::SkipGroup(uint32_t field, int depth) {
  if (depth == kMaxGroupDepth) return false;
  while (true) {
    uint64_t tag = 0;
    if (!ReadTag(&at_, end_, &tag)) return false;
    const auto type = static_cast<WireType>(tag & 7);
    if (type == WireType::kEndGroup) return (tag >> 3) == field;
    const bool read =
        type == WireType::kStartGroup ? SkipGroup(static_cast<uint32_t>(tag >> 3), depth + 1) : ReadValue(type);
    if (!read) return false;
  }
}

}  // namespace gristmill
