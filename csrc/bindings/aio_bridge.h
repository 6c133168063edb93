// SPDX-License-Identifier: Apache-2.0
// AioBridge: carries ModelInfer calls between one asyncio loop and the engine.
//
// Thread-safety: the loop's thread only; every method needs the GIL.
// Ownership: a submitted bytes object is kept alive, and viewed without a copy, until Drain hands its call back.
// Blocking: none but the engine's short locks. The destructor waits for calls still in flight, without the GIL.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "core/free_list.h"
#include "engine/completion_queue.h"
#include "engine/engine.h"

namespace gristmill::python {

class AioBridge {
 public:
  explicit AioBridge(std::shared_ptr<Engine> engine);
  ~AioBridge();

  int fileno() const { return completions_.fd(); }
  /// Keeps the call for the next Flush, so that the engine gets all that one turn of the loop has brought at once.
  uint64_t Submit(const pybind11::bytes& serialized, pybind11::object tag, std::optional<double> timeout_s,
                  bool in_stream, bool errors_end_stream);
  void Flush();
  void Cancel(uint64_t ticket);
  pybind11::list Drain();
  size_t in_flight() const { return calls_.size() - free_calls_.size(); }

 private:
  /// A ticket is a slot in the low half and its generation in the high half, so an old ticket never finds a new call.
  struct Call {
    InferRequest* request = nullptr;  // valid until Drain takes it back: only the loop's thread frees requests
    uint32_t generation = 0;
    pybind11::object tag;
  };

  uint64_t NewCall(InferRequest* request, pybind11::object tag);
  pybind11::object FinishCall(uint64_t ticket);

  const std::shared_ptr<Engine> engine_;
  CompletionQueue completions_;
  std::vector<Call> calls_;
  std::vector<uint32_t> free_calls_;
  FreeList<InferRequest> free_requests_{1024};
  std::vector<std::unique_ptr<InferRequest>> submitted_;  // since the last Flush
  size_t submitted_bytes_ = 0;
  std::vector<Completion> finished_;
};

}  // namespace gristmill::python
