// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nghttp2/nghttp2.h>

#include <cstdint>
#include <string_view>

namespace floors {

// A header whose texts live for as long as it is used.
inline nghttp2_nv Header(std::string_view name, std::string_view value) {
  // nghttp2 takes pointers to non-const and does not write through them.
  const auto bytes = [](std::string_view text) {
    return const_cast<uint8_t*>(reinterpret_cast<const uint8_t*>(text.data()));
  };
  const uint8_t borrow = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE;
  return {bytes(name), bytes(value), name.size(), value.size(), borrow};
}

}  // namespace floors
