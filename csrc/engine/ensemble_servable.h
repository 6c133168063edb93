// SPDX-License-Identifier: Apache-2.0
// EnsembleServable: a version without a backend: other models, whose outputs are each other's inputs.
//
// A request becomes a run. Each step whose inputs are there is handed to the version that serves its model at that
// moment, as a request of its own with the deadline, timeout and priority of the whole; steps that do not depend on
// each other run at the same time. What a step makes is copied once, as it is, and viewed by the steps that take it;
// only outputs that are needed are asked for, and steps that nobody needs are not run. The first failure is the answer,
// and what still waits is taken back.
//
// Thread-safety, blocking: as Servable says. Locks: `mu_`, then that of a run; never while a request is handed on or
// answered.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "core/buffer.h"
#include "core/clock.h"
#include "engine/admission.h"
#include "engine/ensemble_plan.h"
#include "engine/servable.h"
#include "engine/version_table.h"

namespace gristmill {

/// A tensor with bytes of its own.
struct KeptTensor {
  TensorView view;
  Buffer bytes;
};

/// Where the steps of all ensembles are answered. Executors hold on to it until they have flushed it, so it outlives
/// all servables.
class StepSink final : public ResponseSink {
 public:
  void Complete(std::unique_ptr<InferRequest> request, const Status& status, const InferResponse* response) override;
  /// Flushes those whose requests were answered because of steps, and wakes those who got steps.
  void Flush() override;

  void FlushLater(ResponseSink* sink);
  void WakeLater(std::shared_ptr<Servable> servable);
  void Wake(MayRun may_run);

 private:
  Mutex mu_;
  std::vector<std::shared_ptr<Servable>> to_wake_ GUARDED_BY(mu_);
  std::vector<ResponseSink*> unflushed_ GUARDED_BY(mu_);
};

struct EnsembleServableOptions {
  ModelConfig config;
  Clock* clock = nullptr;                  // all outlive the servable
  const VersionTable* versions = nullptr;  // where the steps' models are found
  BufferPool* buffers = nullptr;           // for what steps make
  StepSink* sink = nullptr;
};

class EnsembleServable final : public Servable, public std::enable_shared_from_this<EnsembleServable> {
 public:
  /// kInvalidArgument if the steps do not make up an ensemble.
  static Status Create(EnsembleServableOptions options, std::shared_ptr<Servable>* servable);
  ~EnsembleServable() override;

  Admitted Enqueue(std::unique_ptr<InferRequest>* request, Status* status) override;
  std::unique_ptr<InferRequest> Remove(const InferRequest* request, Status* status) override;
  void Wake(MayRun may_run) override { sink_.Wake(may_run); }
  void Drain() override;
  StatisticsSnapshot statistics() const override { return statistics_.Snapshot(); }
  int64_t pending() const override { return pending_.load(std::memory_order_relaxed); }

 private:
  friend class StepSink;
  struct Run;

  EnsembleServable(EnsembleServableOptions options, EnsemblePlan plan);

  /// Hands on the steps that can be, and answers the run if nothing is left to wait for.
  void Advance(const std::shared_ptr<Run>& run);
  std::unique_ptr<InferRequest> MakeRequest(Run* run, size_t step);
  void HandOn(const std::shared_ptr<Run>& run, size_t step);
  void Complete(const std::shared_ptr<Run>& run, std::unique_ptr<InferRequest> request, Status status,
                const InferResponse* response);
  /// `made`: in the order of the step's outputs that are needed.
  void EndStep(const std::shared_ptr<Run>& run, size_t step, const Status& status, std::vector<KeptTensor> made);
  /// Takes back what waits in the steps' models.
  void TakeBack(const std::shared_ptr<Run>& run);
  void Answer(const std::shared_ptr<Run>& run);

  Clock& clock_;
  const VersionTable& versions_;
  BufferPool& buffers_;
  StepSink& sink_;
  const EnsemblePlan plan_;
  const Admission admission_;
  Statistics statistics_;
  std::atomic<int64_t> pending_{0};

  Mutex mu_;
  CondVar all_answered_;
  bool closed_ GUARDED_BY(mu_) = false;
  int64_t unanswered_ GUARDED_BY(mu_) = 0;
  std::unordered_map<const InferRequest*, std::shared_ptr<Run>> runs_ GUARDED_BY(mu_);
};

}  // namespace gristmill
