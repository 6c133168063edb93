// SPDX-License-Identifier: Apache-2.0
// The message encodings of gRPC.
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "core/buffer.h"
#include "core/status.h"

namespace gristmill {

enum class Encoding { kIdentity, kDeflate, kGzip };

/// As `grpc-accept-encoding` lists them.
inline constexpr std::string_view kAcceptedEncodings = "identity,deflate,gzip";

/// Of a `grpc-encoding` value; nothing if this server does not know it.
std::optional<Encoding> ParseEncoding(std::string_view name);

/// Decompresses a whole message. `max_bytes`: 0 is no limit of its own.
/// Errors: kInternal if it does not decompress, kResourceExhausted if it is larger than allowed.
Status Decompress(Encoding encoding, std::span<const std::byte> compressed, size_t max_bytes, BufferPool* buffers,
                  Buffer* message);

}  // namespace gristmill
