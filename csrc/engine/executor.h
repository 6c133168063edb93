// SPDX-License-Identifier: Apache-2.0
// Executor: takes batches from a servable's queue, runs them on its instance, and answers every request exactly once.
//
// Thread-safety: used by its own thread only.
// Errors: when a batch of several requests fails, its halves are run again, down to single requests, so that only those
// whose own content is to blame are failed.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "core/backend.h"
#include "engine/batched_servable.h"
#include "engine/scatter.h"

namespace gristmill {

class BatchedServable::Executor {
 public:
  /// `index`: among the servable's executors.
  Executor(BatchedServable* servable, size_t index, std::unique_ptr<BackendInstance> instance)
      : servable_(*servable), index_(index), clock_(servable->clock_), instance_(std::move(instance)) {}

  /// Runs batches until the servable is drained.
  void Run();

 private:
  BatchedServable::Run RunBatch(std::span<std::unique_ptr<InferRequest>> requests);
  Status Execute(std::span<std::unique_ptr<InferRequest>> requests, int64_t total_rows);
  void Answer(std::span<std::unique_ptr<InferRequest>> requests, int64_t total_rows);
  void Fail(std::span<std::unique_ptr<InferRequest>> requests, const Status& status);
  void FailGivenUp();
  void Complete(std::unique_ptr<InferRequest> request, const Status& status, const InferResponse* response);
  void FlushSinks();

  BatchedServable& servable_;
  const size_t index_;
  Clock& clock_;
  const std::unique_ptr<BackendInstance> instance_;

  // Reused from batch to batch.
  BatchedServable::Requests batch_;
  std::vector<GivenUpRequest> given_up_;
  uint64_t turn_ = 0;  // of the batch
  std::vector<BatchItem> items_;
  std::vector<OutputTensor> outputs_;
  std::vector<ResponseSink*> sinks_;
  BatchResult result_;
};

}  // namespace gristmill
