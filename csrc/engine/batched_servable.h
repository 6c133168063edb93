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

#include "batching/scheduler.h"
#include "core/backend.h"
#include "core/batch_policy.h"
#include "core/clock.h"
#include "core/infer_request.h"
#include "core/model_config.h"
#include "core/mutex.h"
#include "core/status.h"
#include "engine/admission.h"
#include "engine/rate_limiter.h"
#include "engine/servable.h"
#include "engine/statistics.h"

namespace gristmill {

struct BatchedServableOptions {
  ModelConfig config;
  Clock* clock = nullptr;               // outlives the servable
  const BatchPolicy* policy = nullptr;  // outlives the servable
  RateLimiter* limiter = nullptr;       // likewise; null: runs need nothing
  int64_t short_run_ns = 0;             // what takes longer is not run by the thread that has brought it
  /// Which servable the requests belong to, if this one only runs them for it.
  const Servable* owner = nullptr;
};

class BatchedServable final : public Servable {
 public:
  /// Makes the instances and starts their executors.
  static Status Create(BatchedServableOptions options, std::shared_ptr<BackendModel> model,
                       std::shared_ptr<Servable>* servable);
  ~BatchedServable() override;

  Admitted Enqueue(std::unique_ptr<InferRequest>* request, Status* status) override;
  std::unique_ptr<InferRequest> Remove(const InferRequest* request, Status* status) override;
  void Wake(MayRun may_run) override;
  void Drain() override;
  StatisticsSnapshot statistics() const override { return statistics_.Snapshot(); }
  int64_t pending() const override { return pending_.load(std::memory_order_relaxed); }

 private:
  class Executor;
  class RequestStream;

  /// A batch that has been run without a failure. No rows: none has.
  struct RunRecord {
    int64_t rows = 0;
    int64_t duration_ns = 0;
    int64_t cpu_ns = 0;
  };
  struct Refusal {
    DropReason reason = DropReason::kExpired;
    Status status;
  };

  BatchedServable(BatchedServableOptions options, std::shared_ptr<BackendModel> model);

  /// What a thread of the servable does: runs batches until the servable is drained.
  void Serve();
  /// Takes `previous` back, unless it is null, and blocks until there is a batch for an executor, or until the queue is
  /// closed and empty (null).
  Executor* NextBatch(Executor* previous);
  /// As NextBatch, but null at once where there is nothing to be run now within `longest_ns`.
  Executor* NextShortBatch(Executor* previous, int64_t longest_ns);
  void TakeBack(Executor* executor) REQUIRES(mu_);
  void Run(Executor* executor);
  /// Joins the limiter, if runs need something.
  Status Join(RateLimiter* limiter);
  /// An idle executor with what it is to run or to refuse; null if there is none or nothing is to be done until
  /// `wait_until_ns`.
  Executor* Assign(int64_t now_ns, int64_t* wait_until_ns) REQUIRES(mu_);
  /// Tells other models that this one does not wait for resources any more, if it has come to that.
  void LetOthersGo();
  /// With preserve_order, batches are answered in turn: blocks until all that were taken before have been.
  void AwaitTurn(uint64_t turn);
  void EndTurn();
  Refusal RefuseFull(const QueueLevel& level) const;
  Refusal RefuseUnattainable(const InferRequest& request, int64_t now_ns, int64_t answered_ns) const;
  /// Whether the request is of a kind that this model takes.
  Status CheckCall(const InferRequest& request) const;
  /// Why a request whose caller waits no longer is not run.
  Refusal GivenUp(const InferRequest& request, int64_t now_ns) const;
  Refusal GivenUp(GivenUpReason reason) const;

  Clock& clock_;
  const Admission admission_;
  const Servable* const owner_;                // or this
  const std::shared_ptr<BackendModel> model_;  // destroyed after the executors, which hold its instances
  std::vector<std::unique_ptr<Executor>> executors_;

  Statistics statistics_;
  std::atomic<int64_t> pending_{0};

  Mutex mu_;
  CondVar arrived_;
  Scheduler scheduler_ GUARDED_BY(mu_);
  bool closed_ GUARDED_BY(mu_) = false;
  std::vector<Executor*> idle_ GUARDED_BY(mu_);  // the last used is the next
  CondVar all_idle_;
  bool lets_others_go_ GUARDED_BY(mu_) = false;  // and they do not know yet
  int64_t open_streams_ GUARDED_BY(mu_) = 0;     // of a decoupled model
  uint64_t next_turn_ GUARDED_BY(mu_) = 0;
  uint64_t answered_turns_ GUARDED_BY(mu_) = 0;
  CondVar turn_came_;
  const int64_t short_run_ns_;
  std::unique_ptr<RateLimiter::Member> member_;  // null: runs need nothing

  Mutex drain_mu_;
  std::vector<std::thread> threads_ GUARDED_BY(drain_mu_);
};

}  // namespace gristmill
