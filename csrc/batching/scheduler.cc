// SPDX-License-Identifier: Apache-2.0
#include "batching/scheduler.h"

#include <algorithm>
#include <utility>

namespace gristmill {

Scheduler::Scheduler(SchedulerOptions options)
    : options_(std::move(options)),
      queue_(options_.queue),
      profile_(options_.max_rows),
      cpu_(options_.max_rows),
      busy_until_ns_(static_cast<size_t>(options_.executors)) {}

Scheduler::Verdict Scheduler::Offer(std::unique_ptr<InferRequest>* request, uint64_t group_key, int64_t now_ns,
                                    int64_t* answered_ns) {
  if (!queue_.HasRoom((*request)->priority)) return Verdict::kQueueFull;
  if (IsUnattainable(**request, now_ns, answered_ns)) return Verdict::kUnattainable;
  queue_.Push(std::move(*request), group_key);
  return Verdict::kTaken;
}

bool Scheduler::IsUnattainable(const InferRequest& request, int64_t now_ns, int64_t* answered_ns) const {
  if (request.deadline_ns == kNever || !profile_.is_fresh(now_ns)) return false;
  int64_t start_ns = std::max(now_ns, std::ranges::min(busy_until_ns_));
  const LatencyTable latency = profile_.table();
  const bool combines = options_.queue.max_rows > 1;
  const int64_t rows_ahead = queue_.RowsAhead(request.priority);
  const int64_t rows_of_batch = combines ? options_.queue.max_rows : request.rows;
  const int64_t batches_ahead = rows_ahead / rows_of_batch;
  start_ns += batches_ahead * latency.At(rows_of_batch).typical_ns / static_cast<int64_t>(busy_until_ns_.size());
  const int64_t rows = combines ? rows_ahead % rows_of_batch + request.rows : request.rows;
  // What nothing stands before may be lucky.
  const LatencyTable::Entry run = latency.At(rows);
  *answered_ns = start_ns + (start_ns == now_ns && rows_ahead == 0 ? run.floor_ns : run.typical_ns);
  return *answered_ns > request.deadline_ns;
}

bool Scheduler::Next(size_t executor, int64_t now_ns, Work* work, int64_t* wait_until_ns,
                     const std::function<bool()>& may_begin) {
  BatchDecision decision = queue_.Decide(*options_.policy, profile_, now_ns, &work->given_up);
  if (decision.count > 0 && may_begin && !may_begin()) decision = {.wait_until_ns = kNever};
  if (decision.count > 0) queue_.Take(decision, &work->batch, &work->given_up);
  if (work->empty()) {
    *wait_until_ns = decision.wait_until_ns;
    return false;
  }
  int64_t rows = 0;
  for (const auto& request : work->batch) rows += request->rows;
  if (rows > 0) busy_until_ns_[executor] = now_ns + profile_.table().At(rows).typical_ns;
  return true;
}

void Scheduler::Finished(size_t executor, int64_t rows, int64_t duration_ns, int64_t cpu_ns, int64_t now_ns) {
  busy_until_ns_[executor] = 0;
  if (rows == 0) return;
  profile_.Record(rows, duration_ns, now_ns);
  cpu_.Record(rows, cpu_ns, now_ns);
}

bool Scheduler::IsShort(int64_t longest_ns) const {
  const LatencyTable latency = profile_.table();
  const int64_t rows = std::min(queue_.rows(), options_.max_rows);
  return latency.is_known() && latency.At(rows).floor_ns <= longest_ns &&
         cpu_.table().At(rows).typical_ns <= longest_ns;
}

}  // namespace gristmill
