// SPDX-License-Identifier: Apache-2.0
// Servable: one loaded version of a model: its queue, its executors, its statistics.
//
// Life: Create -> Enqueue, then Wake, from any thread -> Drain -> destruction (which drains if nobody has).
// Thread-safety: thread-safe.
// Ownership: shared by the version table and whoever enqueues; owns the backend's model and instances.
// Blocking: Create as long as the backend takes to make instances; Enqueue never for longer than the queue's short
// lock; Drain until the last admitted request is answered and the executors have ended.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "batching/request_queue.h"
#include "core/backend.h"
#include "core/batch_policy.h"
#include "core/clock.h"
#include "core/infer_request.h"
#include "core/model_config.h"
#include "core/mutex.h"
#include "core/status.h"
#include "engine/admission.h"
#include "engine/statistics.h"

namespace gristmill {

struct ServableOptions {
  ModelConfig config;
  Clock* clock = nullptr;               // outlives the servable
  const BatchPolicy* policy = nullptr;  // outlives the servable
};

class Servable {
 public:
  /// Makes the instances and starts their executors.
  static Status Create(ServableOptions options, std::shared_ptr<BackendModel> model,
                       std::shared_ptr<Servable>* servable);
  ~Servable();
  Servable(const Servable&) = delete;
  Servable& operator=(const Servable&) = delete;

  enum class Admitted { kYes, kRefused, kClosed };

  /// Checks a request and queues it. kYes: the request has been taken and will be answered. kRefused: it is still the
  /// caller's, to be answered with `status`. kClosed: this version takes no more requests; ask the version table again.
  Admitted Enqueue(std::unique_ptr<InferRequest>* request, Status* status);

  /// Gives a request that still waits here back, to be answered with `status`; else null, and it is answered anyway.
  std::unique_ptr<InferRequest> Remove(const InferRequest* request, Status* status);

  /// Has an executor look at what was queued since the last call.
  void Wake() { arrived_.NotifyOne(); }

  /// Takes no new request, answers all that were taken, ends the executors. May be called again, and by several
  /// threads.
  void Drain();

  const ModelConfig& config() const { return options_.config; }
  const std::string& version_text() const { return version_text_; }
  StatisticsSnapshot statistics() const { return statistics_.Snapshot(); }
  /// Requests taken and not yet answered.
  int64_t pending() const { return pending_.load(std::memory_order_relaxed); }

 private:
  using Requests = std::vector<std::unique_ptr<InferRequest>>;
  class Executor;

  explicit Servable(ServableOptions options, std::shared_ptr<BackendModel> model);

  /// Blocks until there is a batch, or until the queue is closed and empty (false). Fills `dropped` as well.
  bool NextBatch(Requests* batch, Requests* dropped);
  Status RefuseFull() const;
  /// Why a request is not run: its deadline has passed or, if not that, its caller has cancelled it.
  Status GivenUp(const InferRequest& request, int64_t now_ns) const;

  const ServableOptions options_;
  const std::string version_text_;
  const Admission admission_;
  const std::shared_ptr<BackendModel> model_;  // destroyed after the executors, which hold its instances
  std::vector<std::unique_ptr<Executor>> executors_;

  Statistics statistics_;
  std::atomic<int64_t> pending_{0};

  Mutex mu_;
  CondVar arrived_;
  RequestQueue queue_ GUARDED_BY(mu_);
  bool closed_ GUARDED_BY(mu_) = false;
  int idle_executors_ GUARDED_BY(mu_) = 0;

  Mutex drain_mu_;
  std::vector<std::thread> threads_ GUARDED_BY(drain_mu_);
};

}  // namespace gristmill
