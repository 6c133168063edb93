// SPDX-License-Identifier: Apache-2.0
#include "transport/header_list.h"

#include "transport/compression.h"
#include "transport/grpc_headers.h"

namespace gristmill {
namespace {

nghttp2_nv Header(std::string_view name, std::string_view value, uint8_t flags) {
  // nghttp2 takes pointers to non-const and does not write through them.
  const auto bytes = [](std::string_view text) {
    return const_cast<uint8_t*>(reinterpret_cast<const uint8_t*>(text.data()));
  };
  return {bytes(name), bytes(value), name.size(), value.size(), flags};
}

}  // namespace

nghttp2_nv FixedHeader(std::string_view name, std::string_view value) {
  return Header(name, value, NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE);
}

nghttp2_nv CopiedHeader(std::string_view name, std::string_view value) { return Header(name, value, 0); }

const std::array<nghttp2_nv, 3>& Head() {
  static const std::array<nghttp2_nv, 3> kHead = {FixedHeader(":status", "200"),
                                                  FixedHeader("content-type", "application/grpc"),
                                                  FixedHeader("grpc-accept-encoding", kAcceptedEncodings)};
  return kHead;
}

std::string_view CodeText(StatusCode code) {
  static constexpr std::array<std::string_view, 17> kTexts = {"0", "1",  "2",  "3",  "4",  "5",  "6",  "7", "8",
                                                              "9", "10", "11", "12", "13", "14", "15", "16"};
  const auto index = static_cast<size_t>(code);
  return index < kTexts.size() ? kTexts[index] : kTexts[2];
}

void HeaderList::Add(const Metadata& metadata) {
  for (const auto& [name, value] : metadata) {
    headers_.push_back(CopiedHeader(name, IsBinaryHeader(name) ? encoded_.emplace_back(Base64Encode(value)) : value));
  }
}

}  // namespace gristmill
