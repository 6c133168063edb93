// SPDX-License-Identifier: Apache-2.0
// Scheduler: what one model version does next: its queue, what its runs have taken, and when its executors are free.
//
// Thread-safety: none; its owner holds one lock around every call. No call copies tensors, computes or answers.
// Ownership: owns the requests that it has taken until Next or Remove hands them out. It has no clock: whoever calls
// says what time it is, so that a simulation runs the same code as the server.
//
//   if (scheduler.Offer(&request, key, now_ns, &answered_ns) == Scheduler::Verdict::kTaken) …
//   if (scheduler.Next(executor, now_ns, &work, &wait_until_ns)) …   // run and answer it, then
//   scheduler.Finished(executor, rows, duration_ns, cpu_ns, now_ns);
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "batching/latency_profile.h"
#include "batching/request_queue.h"
#include "core/batch_policy.h"
#include "core/infer_request.h"

namespace gristmill {

struct SchedulerOptions {
  RequestQueueOptions queue;
  /// Rows of the largest run.
  int64_t max_rows = 1;
  int executors = 1;
  const BatchPolicy* policy = nullptr;  // outlives the scheduler
};

/// One batch, and what is given up instead of being run.
struct Work {
  std::vector<std::unique_ptr<InferRequest>> batch;
  std::vector<GivenUpRequest> given_up;

  bool empty() const { return batch.empty() && given_up.empty(); }
};

class Scheduler {
 public:
  explicit Scheduler(SchedulerOptions options);

  enum class Verdict {
    kTaken,
    kQueueFull,
    kUnattainable,  // it could not be answered before `answered_ns`, which is after its deadline
  };
  /// Takes a request, unless it is refused: then it is still the caller's.
  Verdict Offer(std::unique_ptr<InferRequest>* request, uint64_t group_key, int64_t now_ns, int64_t* answered_ns);

  /// Hands out a request that was offered at some time, here or elsewhere; null if it does not wait here.
  std::unique_ptr<InferRequest> Remove(const InferRequest* request) { return queue_.Remove(request); }

  /// Appends to `work` what `executor`, which is idle, is to do now. False, and nothing is, before `wait_until_ns`, a
  /// new request or a Remove. A batch is begun only if `may_begin` says so, which is asked only about one that is due.
  bool Next(size_t executor, int64_t now_ns, Work* work, int64_t* wait_until_ns,
            const std::function<bool()>& may_begin = {});

  /// `executor` is idle again. `rows` is 0 if what it did says nothing about what a run takes. `cpu_ns`: of its thread.
  void Finished(size_t executor, int64_t rows, int64_t duration_ns, int64_t cpu_ns, int64_t now_ns);

  /// No request comes any more, so from now on no batch waits for company.
  void StopWaiting() { queue_.StopWaiting(); }

  size_t size() const { return queue_.size(); }
  const QueueLevel& LevelFor(uint64_t priority) const { return queue_.LevelFor(priority); }

  /// Whether a run of all that waits, as far as it fits, takes a thread no longer than `longest_ns`. Runs may have
  /// taken longer because other threads had their processor; then their CPU says what they were, and the fastest of
  /// them that they do not sleep.
  bool IsShort(int64_t longest_ns) const;

 private:
  /// Whether a request cannot be answered in time, and when it could be.
  bool IsUnattainable(const InferRequest& request, int64_t now_ns, int64_t* answered_ns) const;

  const SchedulerOptions options_;
  RequestQueue queue_;
  LatencyProfile profile_;
  LatencyProfile cpu_;
  std::vector<int64_t> busy_until_ns_;  // by executor; 0: idle
};

}  // namespace gristmill
