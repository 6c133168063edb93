// SPDX-License-Identifier: Apache-2.0
// Executor: runs the batches that it is given on its instance, and answers every request exactly once.
//
// Thread-safety: used by one thread at a time: whoever the servable has lent it to.
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

  size_t index() const { return index_; }

  /// To be filled in before Run, which empties it.
  Work* work() { return &work_; }
  void set_turn(uint64_t turn) { turn_ = turn; }

  /// Runs the batch, if there is one, and answers it and what was given up.
  void Run();

  const BatchedServable::RunRecord& last_run() const { return last_run_; }

 private:
  /// Hands the requests to a decoupled model, which answers them in its own time.
  void HandOver(std::span<std::unique_ptr<InferRequest>> requests);
  BatchedServable::RunRecord RunBatch(std::span<std::unique_ptr<InferRequest>> requests);
  Status Execute(std::span<std::unique_ptr<InferRequest>> requests, int64_t total_rows);
  void Answer(std::span<std::unique_ptr<InferRequest>> requests, int64_t total_rows);
  void Fail(std::span<std::unique_ptr<InferRequest>> requests, const Status& status);
  void FailGivenUp();
  /// Makes outputs_ of a model's own answer to a request.
  Status TakeItem(const InferRequest& request, const ItemAnswer& answer);
  void Complete(std::unique_ptr<InferRequest> request, const Status& status, const InferResponse* response);
  void FlushSinks();

  BatchedServable& servable_;
  const size_t index_;
  Clock& clock_;
  const std::unique_ptr<BackendInstance> instance_;

  // Reused from batch to batch.
  Work work_;
  uint64_t turn_ = 0;  // of the batch
  BatchedServable::RunRecord last_run_;
  bool measures_cpu_ = false;  // a run that is short by the clock needs no system call to tell
  std::vector<BatchItem> items_;
  std::vector<OutputTensor> outputs_;
  std::vector<ResponseSink*> sinks_;
  BatchResult result_;
};

}  // namespace gristmill
