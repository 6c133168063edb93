// SPDX-License-Identifier: Apache-2.0
// HeaderList: the headers of an answer as nghttp2 takes them.
#pragma once

#include <nghttp2/nghttp2.h>

#include <array>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "core/status.h"
#include "transport/call.h"

namespace gristmill {

/// Of texts that live as long as the program.
nghttp2_nv FixedHeader(std::string_view name, std::string_view value);
/// Of texts that live until the header is submitted.
nghttp2_nv CopiedHeader(std::string_view name, std::string_view value);

/// Of every answer, first.
const std::array<nghttp2_nv, 3>& Head();

/// Of `grpc-status`.
std::string_view CodeText(StatusCode code);

/// Headers on their way to nghttp2, which copies what is not fixed when they are submitted.
class HeaderList {
 public:
  void Add(const nghttp2_nv& header) { headers_.push_back(header); }
  void Add(const Metadata& metadata);
  void AddHead() { headers_.insert(headers_.end(), Head().begin(), Head().end()); }

  const nghttp2_nv* data() const { return headers_.data(); }
  size_t size() const { return headers_.size(); }

 private:
  std::vector<nghttp2_nv> headers_;
  std::deque<std::string> encoded_;  // binary values; a deque leaves them where they are
};

}  // namespace gristmill
