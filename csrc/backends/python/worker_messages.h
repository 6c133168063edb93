// SPDX-License-Identifier: Apache-2.0
// What the server and a worker process (server/gristmill_worker/messages.py) say to each other.
//
// A message is a Doorbell on a socket and a body in its sender's SharedArena. Bodies are little-endian numbers without
// padding; a text is its length in 32 bits and its bytes; a tensor is
//
//   u8 datatype (DataType) | u8 rank | i64 dims[rank] | u64 offset | u64 bytes     its data lies in the same arena
//
//   kInitialize  u32 n, n times: text key, text value
//   kReady       u32 code (StatusCode), text message
//   kExecute     u32 n, n times: u64 ticket, text id, u64 sequence number, text sequence name, u8 flags (1 start, 2
//   end),
//                i64 timeout_us, u64 priority, u32 outputs, so many u32 indices, u32 inputs, so many tensors
//   kAnswers     u32 code, text message; if the code is 0 and the model is not decoupled u32 n, n times an answer
//   answer       u32 code, text message, u32 outputs, so many: u32 index, tensor
//   kCall        u64 call, text model, text version, text id, u64 sequence number, text sequence name, u8 flags,
//                i64 timeout_us, u64 priority, u32 outputs, so many texts, u32 inputs, so many: text name, tensor
//   kReply       u64 call, u32 code, text message, u32 outputs, so many: text name, tensor
//   kStream      u64 ticket, u8 is_last, an answer; the last one has no outputs unless its code is 0
//   kCancel      u64 ticket
//   kFinalize, kRelease: nothing
//
// What a reader gets from a worker is checked and never trusted: a damaged body makes a Status, not a crash.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "backends/python/shared_arena.h"
#include "core/backend.h"
#include "core/model_caller.h"
#include "core/status.h"
#include "core/tensor.h"

namespace gristmill {

enum class WorkerMessage : uint32_t {
  kInitialize = 1,
  kReady = 2,
  kExecute = 3,
  kAnswers = 4,
  kCall = 5,
  kReply = 6,
  kStream = 7,
  kCancel = 8,
  kFinalize = 9,
  kRelease = 10,
};

struct Doorbell {
  uint32_t kind = 0;
  /// How many messages of the other side their receiver has done with since it last said so. Once all are, the
  /// other side's arena is free.
  uint32_t released = 0;
  uint64_t offset = 0;
  uint64_t size_bytes = 0;
};

class BodyWriter {
 public:
  template <typename Number>
  void Put(Number number) {
    static_assert(std::is_arithmetic_v<Number> || std::is_enum_v<Number>);
    body_.append(reinterpret_cast<const char*>(&number), sizeof number);
  }
  void PutText(std::string_view text);
  /// `offset`: where its data has been put.
  void PutTensor(const TensorView& tensor, uint64_t offset);
  std::span<const std::byte> body() const { return std::as_bytes(std::span(body_)); }
  void Clear() { body_.clear(); }

 private:
  std::string body_;
};

/// Reads of what is not there give zeros and make `ok` false for good.
class BodyReader {
 public:
  BodyReader(std::span<const std::byte> body, const SharedArena* arena) : body_(body), arena_(*arena) {}

  template <typename Number>
  Number Get() {
    Number number{};
    if (const std::byte* at = Take(sizeof number)) std::memcpy(&number, at, sizeof number);
    return number;
  }
  /// Of elements that take at least `element_bytes` each, so that no count can be beyond what is there.
  uint32_t GetCount(size_t element_bytes);
  std::string_view GetText();
  /// Its shape, its size and its texts agree with each other.
  TensorView GetTensor();

  bool ok() const { return ok_; }
  /// Whether everything has been read and nothing was missing.
  bool is_whole() const { return ok_ && body_.empty(); }
  void Fail() { ok_ = false; }

 private:
  const std::byte* Take(size_t size_bytes);

  std::span<const std::byte> body_;
  const SharedArena& arena_;
  bool ok_ = true;
};

/// An error as worker and server tell each other.
Status ReadStatus(BodyReader* reader);

/// One answer; outputs by index of the configuration, whose types they must have. What is wrong with one that can be
/// read is its own status.
ItemAnswer ReadAnswer(BodyReader* reader, const ModelConfig& config);

/// As in kAnswers, for `items` items. kInternal if it cannot be read.
Status ReadAnswers(std::span<const std::byte> body, const SharedArena& arena, const ModelConfig& config, size_t items,
                   std::vector<ItemAnswer>* answers);

/// As in kCall. kInternal if it cannot be read.
Status ReadCall(std::span<const std::byte> body, const SharedArena& arena, uint64_t* number, ModelCall* call);

}  // namespace gristmill
