// SPDX-License-Identifier: Apache-2.0
// SequenceServable: a version that serves sequences of requests, each of which goes on where the last one stopped.
//
// A sequence belongs to one instance for its life. At most one request of a sequence is run at a time, in the order of
// their arrival; what runs together are requests of different sequences. The states of a sequence are kept here between
// its requests. A request that fails, or is given up before its run, leaves its sequence as it was: the next one starts
// from the same states, and is told that it starts the sequence if the lost one was to.
//
// Ownership: has a BatchedServable for each instance, which runs the requests with controls and states added.
// Thread-safety, blocking: as Servable says. Locks: `mu_` before those of the instances, never while answering.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "engine/admission.h"
#include "engine/batched_servable.h"
#include "engine/sequence_inputs.h"
#include "engine/servable.h"

namespace gristmill {

class SequenceServable final : public Servable, private ResponseSink {
 public:
  /// `options` of the whole, whose configuration has SequenceOptions.
  static Status Create(BatchedServableOptions options, std::shared_ptr<BackendModel> model,
                       std::shared_ptr<Servable>* servable);
  ~SequenceServable() override;

  Admitted Enqueue(std::unique_ptr<InferRequest>* request, Status* status) override;
  std::unique_ptr<InferRequest> Remove(const InferRequest* request, Status* status) override;
  void Wake(MayRun may_run) override;
  void Drain() override;
  StatisticsSnapshot statistics() const override;
  int64_t pending() const override { return pending_.load(std::memory_order_relaxed); }

 private:
  struct Instance;

  struct Sequence {
    std::string key;
    Instance* instance = nullptr;
    bool has_slot = false;  // else it waits until another sequence of its instance is over
    bool is_idle = false;   // it stands in `idle_`, at `idle_place`
    std::list<Sequence*>::iterator idle_place;
    int64_t over_at_ns = 0;  // while idle
    SequenceValues values;
    /// No request has been run yet since the one that was to start it came.
    bool is_to_start = true;
    /// The same, of a request that is still to come.
    bool next_is_to_start = false;
    /// The last request that came ends it: only a new start may follow.
    bool is_to_end = false;
    std::deque<std::unique_ptr<InferRequest>> waiting;
    /// The request that the instance has, and what it was before.
    const InferRequest* in_flight = nullptr;
    ResponseSink* sink = nullptr;
    size_t inputs = 0;
    size_t requested_outputs = 0;
    size_t answered_outputs = 0;
  };

  struct Instance {
    std::shared_ptr<Servable> runner;
    int64_t slots = 0;    // free
    int64_t members = 0;  // sequences with and without a slot
    std::deque<Sequence*> backlog;
  };

  /// A request that an instance has refused, to be answered once `mu_` is free.
  struct Refused {
    std::unique_ptr<InferRequest> request;
    Status status;
  };
  using Refusals = std::vector<Refused>;

  explicit SequenceServable(const BatchedServableOptions& options);

  // ResponseSink, of the instances.
  void Complete(std::unique_ptr<InferRequest> request, const Status& status, const InferResponse* response) override;
  void Flush() override;

  static std::string KeyOf(const SequenceTag& tag);
  /// Null if there is no such sequence.
  Sequence* Find(const std::string& key) REQUIRES(mu_);
  /// The sequence that `request` belongs to, begun if it may be.
  Status FindOrBegin(const InferRequest& request, const std::string& key, Sequence** sequence) REQUIRES(mu_);
  /// Hands on what the sequence can have run now, and ends it if nothing more is to come.
  void Advance(Sequence* sequence, Refusals* refusals) REQUIRES(mu_);
  bool HandOn(Sequence* sequence, Refusals* refusals) REQUIRES(mu_);
  void SetIdle(Sequence* sequence) REQUIRES(mu_);
  void SetBusy(Sequence* sequence) REQUIRES(mu_);
  void End(Sequence* sequence, Refusals* refusals) REQUIRES(mu_);
  void EndIdle(int64_t now_ns, Refusals* refusals) REQUIRES(mu_);
  /// Makes a request what it was before it was handed on.
  void Restore(Sequence* sequence, InferRequest* request);
  void Answer(Refusals refusals);
  /// What the thread does that ends sequences which have been idle for too long.
  void WatchIdle();

  Clock& clock_;
  const Admission admission_;
  const SequenceInputs inputs_;
  std::vector<std::unique_ptr<Instance>> instances_;
  Statistics refused_;  // what no instance has seen
  std::atomic<int64_t> pending_{0};

  Mutex mu_;
  CondVar changed_;
  bool closed_ GUARDED_BY(mu_) = false;
  bool stopped_ GUARDED_BY(mu_) = false;
  int64_t unanswered_ GUARDED_BY(mu_) = 0;
  std::unordered_map<std::string, std::unique_ptr<Sequence>> sequences_ GUARDED_BY(mu_);
  std::list<Sequence*> idle_ GUARDED_BY(mu_);  // the first is over first
  std::vector<ResponseSink*> unflushed_ GUARDED_BY(mu_);

  Mutex drain_mu_;
  std::thread watcher_ GUARDED_BY(drain_mu_);
};

}  // namespace gristmill
