// SPDX-License-Identifier: Apache-2.0
// CachedServable: a version whose answers are kept, and given again to whoever asks the same.
//
// What is the same: the inputs (or those that the configuration names), byte for byte, and the set of outputs asked
// for, of the same loaded version; a version that is loaded again never answers with what the old one did. Equal
// requests that come while the first of them is being run wait for its answer; if that one fails, its error is its own,
// and the next of them is run. Failures are not kept.
//
// Ownership: shares the cache with other servables and has the servable that runs what is not there.
// Thread-safety, blocking: as Servable says. Locks: `mu_` before those of the inner servable, never while answering.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <unordered_map>
#include <vector>

#include "engine/admission.h"
#include "engine/batched_servable.h"
#include "engine/response_cache.h"
#include "engine/servable.h"

namespace gristmill {

class CachedServable final : public Servable, private ResponseSink {
 public:
  /// `options` of the whole, whose configuration has CacheOptions. `cache` outlives the servable.
  static Status Create(BatchedServableOptions options, std::shared_ptr<BackendModel> model, ResponseCache* cache,
                       std::shared_ptr<Servable>* servable);
  ~CachedServable() override;

  Admitted Enqueue(std::unique_ptr<InferRequest>* request, Status* status) override;
  std::unique_ptr<InferRequest> Remove(const InferRequest* request, Status* status) override;
  void Wake(MayRun may_run) override { runner_->Wake(may_run); }
  void Drain() override;
  StatisticsSnapshot statistics() const override;
  int64_t pending() const override { return pending_.load(std::memory_order_relaxed); }

 private:
  /// Equal requests, of which one is being run.
  struct Flight {
    CacheKey key;
    const InferRequest* first = nullptr;  // which is being run
    ResponseSink* sink = nullptr;         // of the first
    int64_t missed_ns = 0;                // how long it took to find that the answer is not there
    std::deque<std::unique_ptr<InferRequest>> others;
  };
  struct Refused {
    std::unique_ptr<InferRequest> request;
    Status status;
  };

  CachedServable(const BatchedServableOptions& options, ResponseCache* cache);

  // ResponseSink, of the inner servable.
  void Complete(std::unique_ptr<InferRequest> request, const Status& status, const InferResponse* response) override;
  void Flush() override;

  CacheKey KeyOf(const InferRequest& request) const;
  /// Hands a request of a flight on. False: it has been refused, and is the caller's again.
  bool HandOn(Flight* flight, std::unique_ptr<InferRequest>* request, Status* status) REQUIRES(mu_);
  /// Has the next request of a flight run, whose first is gone without an answer for all; or ends it.
  void GoOn(Flight* flight, std::vector<Refused>* refused) REQUIRES(mu_);
  void Answer(std::vector<Refused> refused);
  void AnswerFrom(const CachedAnswer& answer, std::unique_ptr<InferRequest> request);
  void Restore(const Flight& flight, InferRequest* request);

  Clock& clock_;
  ResponseCache& cache_;
  const Admission admission_;
  const uint64_t number_;  // of no other servable of this process
  std::vector<size_t> key_inputs_;
  std::shared_ptr<Servable> runner_;
  Statistics statistics_;  // of what the inner servable does not see
  std::atomic<int64_t> pending_{0};

  mutable Mutex mu_;
  CondVar flights_ended_;
  bool closed_ GUARDED_BY(mu_) = false;
  std::unordered_map<CacheKey, std::unique_ptr<Flight>, CacheKeyHash> flights_ GUARDED_BY(mu_);
  std::unordered_map<const InferRequest*, Flight*> flight_of_ GUARDED_BY(mu_);
  std::vector<ResponseSink*> unflushed_ GUARDED_BY(mu_);
};

}  // namespace gristmill
