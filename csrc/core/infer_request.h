// SPDX-License-Identifier: Apache-2.0
// InferRequest, OutputTensor and ResponseSink: one prediction on its way through the server.
//
// Life: a front end makes a request, the decoder fills it with views on the received bytes, the engine takes it over,
// and its sink gets it back exactly once, with an answer or with an error. The request object, and so the received
// bytes, live until the sink lets them go. Ownership: every string_view and span in a request points into `received` or
// `decoded`, which the request owns. Thread-safety: one thread at a time owns a request. Engine::Cancel reads nothing
// that is written after admission, so a front end may cancel what others own.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/buffer.h"
#include "core/clock.h"
#include "core/status.h"
#include "core/tensor.h"

namespace gristmill {

class InferRequest;
class Servable;

/// One input as the client named it.
struct InputTensor {
  std::string_view name;
  TensorView tensor;
};

/// One output of an answer. Borrowed: valid while the sink's Complete runs.
struct OutputTensor {
  std::string_view name;
  TensorView tensor;
};

/// Which sequence of requests one belongs to, named by a number or by a text.
struct SequenceTag {
  uint64_t number = 0;    // 0: none
  std::string_view name;  // empty: none
  bool start = false;
  bool end = false;

  bool is_set() const { return number != 0 || !name.empty(); }
};

/// Whether an answer is the only one, as it is unless the model is decoupled.
enum class Finality { kOnly, kMoreToCome, kLast };

/// What a request is answered with. Borrowed, as OutputTensor is.
struct InferResponse {
  std::string_view model_name;
  std::string_view model_version;
  std::string_view id;
  std::span<const OutputTensor> outputs;
  Finality finality = Finality::kOnly;
};

/// Names of models.
using WaitingModels = std::set<std::string, std::less<>>;

/// Where answers go. One per front end.
/// Thread-safety: called by executor threads and by the submitting thread, at the same time.
/// Blocking: must not block; encodes or copies what it keeps.
class ResponseSink {
 public:
  virtual ~ResponseSink() = default;

  /// Takes a finished request back. `response` is null when `status` is not OK, and when a decoupled model has sent all
  /// its answers before.
  virtual void Complete(std::unique_ptr<InferRequest> request, const Status& status, const InferResponse* response) = 0;

  /// One of the answers that a decoupled model gives before the request is finished. Only for requests with an
  /// envelope; calls for one request do not overlap. False: there is no room for it, and it is lost.
  virtual bool Stream(const InferRequest& request, const InferResponse& response);

  /// Called once after the last Complete of a batch: the moment to wake the front end.
  virtual void Flush() = 0;
};

/// Received bytes owned by somebody else's allocator (a Python bytes object, a pooled buffer), let go by `release`.
class ReceivedBytes {
 public:
  using Release = void (*)(void* owner);

  ReceivedBytes() = default;
  ReceivedBytes(std::span<const std::byte> bytes, void* owner, Release release)
      : bytes_(bytes), owner_(owner), release_(release) {}
  ReceivedBytes(ReceivedBytes&& other) noexcept
      : bytes_(std::exchange(other.bytes_, {})),
        owner_(std::exchange(other.owner_, nullptr)),
        release_(std::exchange(other.release_, nullptr)) {}
  ReceivedBytes& operator=(ReceivedBytes&& other) noexcept {
    ReceivedBytes taken(std::move(other));
    std::swap(bytes_, taken.bytes_);
    std::swap(owner_, taken.owner_);
    std::swap(release_, taken.release_);
    return *this;
  }
  ~ReceivedBytes() {
    if (release_ != nullptr) release_(owner_);
  }

  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
  void* owner_ = nullptr;
  Release release_ = nullptr;
};

/// What an answer is written into.
enum class Envelope {
  kNone,           // the answer is the message
  kStream,         // a ModelStreamInferResponse, for errors too
  kStreamAnswers,  // a ModelStreamInferResponse, but not for errors
};

class InferRequest {
 public:
  // Set by the front end.
  ReceivedBytes received;
  ResponseSink* sink = nullptr;  // outlives the request
  uint64_t ticket = 0;           // the front end's own name for this call
  Envelope envelope = Envelope::kNone;
  std::shared_ptr<const WaitingModels> waiting_models;  // which wait for the answer, if models have sent the request
  int64_t arrival_ns = 0;
  int64_t deadline_ns = kNever;

  // Set by the decoder.
  std::string_view model_name;
  std::string_view model_version;  // empty, a number, or an alias
  std::string_view id;
  std::vector<InputTensor> inputs;
  std::vector<std::string_view> requested_outputs;  // empty: all
  int64_t timeout_us = 0;                           // the parameter of this name; 0: none
  uint64_t priority = 0;                            // 1 is the most urgent; 0: the model's default
  bool wants_final_response = false;                // an empty one after those of a decoupled model
  SequenceTag sequence;
  std::vector<Buffer> decoded;  // elements of typed contents that have no raw form in `received`

  // Set by the engine, on the front end's thread.
  std::atomic<bool> cancelled = false;
  const Servable* servable = nullptr;  // whose queue it has come to; gone, perhaps, once the request has been answered
  void* servable_state = nullptr;      // the servable's own
  int64_t rows = 1;
  int64_t enqueue_ns = 0;
  std::vector<TensorView> ordered_inputs;  // in the order of the model's configuration
  std::vector<uint32_t> output_indices;    // into the model's outputs, in the order of the answer

  /// Where the queue finds it again.
  struct QueuePlace {
    uint64_t group_key = 0;
    uint64_t sequence = 0;
    uint32_t rank = 0;
  };
  QueuePlace queue_place;

  // Set by the sink.
  Buffer encoded_response;

  /// Makes the object as new but keeps the capacity of its vectors, so that a front end can reuse it.
  void Reset();
};

}  // namespace gristmill
