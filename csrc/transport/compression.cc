// SPDX-License-Identifier: Apache-2.0
#include "transport/compression.h"

#include <zlib.h>

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "transport/received_buffer.h"

namespace gristmill {
namespace {

// A few bytes can stand for a thousand times as many, so there is a limit where none is set.
constexpr size_t kLargestMessageBytes = size_t{1} << 30;
constexpr size_t kSmallestBufferBytes = 4096;

int WindowBits(Encoding encoding) {
  constexpr int kGzipFormat = 16;
  return MAX_WBITS + (encoding == Encoding::kGzip ? kGzipFormat : 0);
}

class Inflater {
 public:
  explicit Inflater(Encoding encoding) { is_open_ = inflateInit2(&stream_, WindowBits(encoding)) == Z_OK; }
  ~Inflater() {
    if (is_open_) inflateEnd(&stream_);
  }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  bool is_open() const { return is_open_; }
  z_stream& stream() { return stream_; }

 private:
  z_stream stream_{};
  bool is_open_ = false;
};

}  // namespace

std::optional<Encoding> ParseEncoding(std::string_view name) {
  if (name == "identity") return Encoding::kIdentity;
  if (name == "deflate") return Encoding::kDeflate;
  if (name == "gzip") return Encoding::kGzip;
  return std::nullopt;
}

std::string_view EncodingName(Encoding encoding) {
  switch (encoding) {
    case Encoding::kDeflate:
      return "deflate";
    case Encoding::kGzip:
      return "gzip";
    default:
      return "identity";
  }
}

EncodingSet ParseAcceptEncoding(std::string_view names) {
  EncodingSet accepted;
  while (!names.empty()) {
    const size_t comma = std::min(names.find(','), names.size());
    std::string_view name = names.substr(0, comma);
    while (name.starts_with(' ')) name.remove_prefix(1);
    while (name.ends_with(' ')) name.remove_suffix(1);
    if (const std::optional<Encoding> encoding = ParseEncoding(name)) accepted.Add(*encoding);
    names.remove_prefix(std::min(comma + 1, names.size()));
  }
  return accepted;
}

Buffer Compress(Encoding encoding, std::span<const std::byte> message, BufferPool* buffers) {
  if (encoding == Encoding::kIdentity || message.size() < 2 || message.size() > std::numeric_limits<uInt>::max()) {
    return {};
  }
  // With room for less than the message, deflate runs out of it exactly when it would not make it smaller.
  Buffer out = buffers->TryAcquire(message.size() - 1);
  z_stream stream{};
  if (out.is_null() || deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, WindowBits(encoding), MAX_MEM_LEVEL,
                                    Z_DEFAULT_STRATEGY) != Z_OK) {
    return {};
  }
  stream.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(message.data()));  // zlib only reads it
  stream.avail_in = static_cast<uInt>(message.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  const bool is_smaller = deflate(&stream, Z_FINISH) == Z_STREAM_END;
  const size_t size_bytes = out.size() - stream.avail_out;
  deflateEnd(&stream);
  if (!is_smaller) return {};
  out.Truncate(size_bytes);
  return out;
}

Status Decompress(Encoding encoding, std::span<const std::byte> compressed, size_t max_bytes, BufferPool* buffers,
                  Buffer* message) {
  const size_t limit = max_bytes > 0 ? max_bytes : kLargestMessageBytes;
  Inflater inflater(encoding);
  if (!inflater.is_open() || compressed.size() > std::numeric_limits<uInt>::max()) {
    return Internal("a compressed message does not decompress");
  }
  z_stream& stream = inflater.stream();
  stream.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(compressed.data()));  // zlib only reads it
  stream.avail_in = static_cast<uInt>(compressed.size());
  Buffer out;
  const size_t guess = std::min(std::max(compressed.size() * 4, kSmallestBufferBytes), limit + 1);
  if (Status status = GrowReceived(0, guess, buffers, &out); !status.ok()) return status;
  size_t used_bytes = 0;
  while (true) {
    stream.next_out = reinterpret_cast<Bytef*>(out.data() + used_bytes);
    stream.avail_out = static_cast<uInt>(out.size() - used_bytes);
    const int result = inflate(&stream, Z_NO_FLUSH);
    used_bytes = out.size() - stream.avail_out;
    if (used_bytes > limit) {
      return ResourceExhausted("received message larger than max once decompressed (" + std::to_string(limit) + ")");
    }
    if (result == Z_STREAM_END) break;
    if (result != Z_OK && result != Z_BUF_ERROR) return Internal("a compressed message does not decompress");
    if (stream.avail_out > 0) return Internal("a compressed message ends too early");
    const size_t larger = std::min(out.size() * 2, limit + 1);
    if (Status status = GrowReceived(used_bytes, larger, buffers, &out); !status.ok()) return status;
  }
  if (stream.avail_in > 0) return Internal("a compressed message goes on after its end");
  out.Truncate(used_bytes);
  *message = std::move(out);
  return Status::Ok();
}

}  // namespace gristmill
