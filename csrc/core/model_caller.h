// SPDX-License-Identifier: Apache-2.0
// ModelCaller: how a model that is being run asks another one.
//
// Thread-safety: thread-safe. Blocking: Call never blocks.
// Errors: what a caller over the network would get. A model that waits for the answer itself, directly or by way of
// others, is not asked: kFailedPrecondition.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/clock.h"
#include "core/infer_request.h"
#include "core/status.h"
#include "core/tensor.h"

namespace gristmill {

struct ModelCall {
  struct Input {
    std::string name;
    TensorView tensor;  // its bytes live until `done` has been called
  };

  std::string model;
  std::string version;  // as a request names it; empty: the newest
  std::string id;
  std::vector<Input> inputs;
  std::vector<std::string> outputs;  // empty: all
  SequenceTag sequence;
  std::string sequence_name;  // that `sequence` is to be called by, if not by a number
  int64_t timeout_us = 0;
  uint64_t priority = 0;
  int64_t deadline_ns = kNever;
  std::shared_ptr<const WaitingModels> waiting_models;
};

class ModelCaller {
 public:
  /// As ResponseSink::Complete.
  using Done = std::function<void(const Status& status, const InferResponse* response)>;

  virtual ~ModelCaller() = default;

  /// Calls `done` once, by any thread, perhaps before it returns.
  virtual void Call(ModelCall call, Done done) = 0;
};

}  // namespace gristmill
