// SPDX-License-Identifier: Apache-2.0
// The message encodings of gRPC.
#pragma once

#include <cstdint>
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
std::string_view EncodingName(Encoding encoding);

/// What a client can decompress.
class EncodingSet {
 public:
  void Add(Encoding encoding) { bits_ |= BitOf(encoding); }
  bool Has(Encoding encoding) const { return (bits_ & BitOf(encoding)) != 0; }

 private:
  static uint32_t BitOf(Encoding encoding) { return 1U << static_cast<uint32_t>(encoding); }

  uint32_t bits_ = BitOf(Encoding::kIdentity);
};

/// Of a `grpc-accept-encoding` value.
EncodingSet ParseAcceptEncoding(std::string_view names);

/// Compresses a whole message. A null buffer if that would not make it smaller, or if the pool has no more to give.
Buffer Compress(Encoding encoding, std::span<const std::byte> message, BufferPool* buffers);

/// Decompresses a whole message. `max_bytes`: 0 is no limit of its own.
/// Errors: kInternal if it does not decompress, kResourceExhausted if it is larger than allowed or than the pool gives.
Status Decompress(Encoding encoding, std::span<const std::byte> compressed, size_t max_bytes, BufferPool* buffers,
                  Buffer* message);

}  // namespace gristmill
