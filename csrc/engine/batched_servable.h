// SPDX-License-Identifier: Apache-2.0
// BatchedServable: a version that runs on a backend: its queue, its executors, its statistics.
//
// Ownership: owns the backend's model and instances. Blocking: Create takes as long as the backend does to make
// instances; the rest as Servable says.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "batching/latency_profile.h"
#include "batching/request_queue.h"
#include "core/backend.h"
#include "core/batch_policy.h"
#include "core/clock.h"
#include "core/infer_request.h"
#include "core/model_config.h"
#include "core/mutex.h"
#include "core/status.h"
#include "engine/admission.h"
#include "engine/servable.h"
#include "engine/statistics.h"

namespace gristmill {

struct BatchedServableOptions {
  ModelConfig config;
  Clock* clock = nullptr;               // outlives the servable
  const BatchPolicy* policy = nullptr;  // outlives the servable
};

class BatchedServable final : public Servable {
 public:
  /// Makes the instances and starts their executors.
  static Status Create(BatchedServableOptions options, std::shared_ptr<BackendModel> model,
                       std::shared_ptr<Servable>* servable);
  ~BatchedServable() override;

  Admitted Enqueue(std::unique_ptr<InferRequest>* request, Status* status) override;
  std::unique_ptr<InferRequest> Remove(const InferRequest* request, Status* status) override;
  void Wake() override { arrived_.NotifyOne(); }
  void Drain() override;
  StatisticsSnapshot statistics() const override { return statistics_.Snapshot(); }
  int64_t pending() const override { return pending_.load(std::memory_order_relaxed); }

 private:
  using Requests = std::vector<std::unique_ptr<InferRequest>>;
  class Executor;

  /// A batch that has been run without a failure. No rows: none has.
  struct Run {
    int64_t rows = 0;
    int64_t duration_ns = 0;
  };
  struct Refusal {
    DropReason reason = DropReason::kExpired;
    Status status;
  };

  BatchedServable(BatchedServableOptions options, std::shared_ptr<BackendModel> model);

  /// Blocks until there is a batch, or until the queue is closed and empty (false). Fills `given_up` as well. `last` is
  /// what the executor, `index`, has done since it last asked.
  bool NextBatch(size_t index, const Run& last, Requests* batch, std::vector<GivenUpRequest>* given_up, uint64_t* turn);
  /// With preserve_order, batches are answered in turn: blocks until all that were taken before have been.
  void AwaitTurn(uint64_t turn);
  void EndTurn();
  /// Whether a request cannot be answered in time, and when it could be.
  bool IsUnattainable(const InferRequest& request, int64_t now_ns, int64_t* answered_ns) REQUIRES(mu_);
  Refusal RefuseFull(const QueueLevel& level) const;
  Refusal RefuseUnattainable(const InferRequest& request, int64_t now_ns, int64_t answered_ns) const;
  Status RefuseSequence() const;
  /// Why a request whose caller waits no longer is not run.
  Refusal GivenUp(const InferRequest& request, int64_t now_ns) const;
  Refusal GivenUp(GivenUpReason reason) const;

  Clock& clock_;
  const BatchPolicy& policy_;
  const Admission admission_;
  const std::shared_ptr<BackendModel> model_;  // destroyed after the executors, which hold its instances
  std::vector<std::unique_ptr<Executor>> executors_;

  Statistics statistics_;
  std::atomic<int64_t> pending_{0};

  Mutex mu_;
  CondVar arrived_;
  RequestQueue queue_ GUARDED_BY(mu_);
  LatencyProfile profile_ GUARDED_BY(mu_);
  std::vector<int64_t> busy_until_ns_ GUARDED_BY(mu_);  // by executor; 0: idle
  bool closed_ GUARDED_BY(mu_) = false;
  int idle_executors_ GUARDED_BY(mu_) = 0;
  uint64_t next_turn_ GUARDED_BY(mu_) = 0;
  uint64_t answered_turns_ GUARDED_BY(mu_) = 0;
  CondVar turn_came_;

  Mutex drain_mu_;
  std::vector<std::thread> threads_ GUARDED_BY(drain_mu_);
};

}  // namespace gristmill
