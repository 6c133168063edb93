// SPDX-License-Identifier: Apache-2.0
// The texts of gRPC's headers: timeouts, status messages, and binary metadata.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace gristmill {

/// Nanoseconds of a `grpc-timeout` value: 1 to 8 digits and one of H M S m u n. Saturates; nothing if it is none.
std::optional<int64_t> ParseGrpcTimeout(std::string_view text);

/// A status message as `grpc-message` carries it: bytes outside 0x20 to 0x7e, and '%', as %XX. So are blanks at either
/// end: HTTP/2 allows a value none there, and some clients drop one that has them.
std::string PercentEncode(std::string_view message);

/// Standard base64 without padding, as gRPC writes metadata whose name ends in "-bin".
std::string Base64Encode(std::string_view bytes);

/// Takes padding or none. Nothing if it is no base64.
std::optional<std::string> Base64Decode(std::string_view text);

inline bool IsBinaryHeader(std::string_view name) { return name.ends_with("-bin"); }

}  // namespace gristmill
