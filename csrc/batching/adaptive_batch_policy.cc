// SPDX-License-Identifier: Apache-2.0
#include "batching/adaptive_batch_policy.h"

#include <algorithm>

namespace gristmill {
namespace {

/// A next request that has not come after so many times the usual gap is not waited for.
constexpr int64_t kGapsToWait = 2;

/// How far beyond one batch the requests that wait are looked at.
constexpr int64_t kBatchesAhead = 3;

/// The first of `group` that make up a preferred size, the largest there is; 0 if none does.
size_t PreferredCount(const PendingGroup& group, size_t count, std::span<const int64_t> preferred_rows) {
  if (preferred_rows.empty()) return 0;
  int64_t rows = 0;
  size_t preferred = 0;
  for (size_t i = 0; i < count; ++i) {
    rows += group.requests[i].rows;
    if (std::ranges::binary_search(preferred_rows, rows)) preferred = i + 1;
  }
  return preferred;
}

/// Kept of the time until `limit_ns`, since a thread wakes up late now and then.
int64_t Reserve(const PendingRequest& request, int64_t limit_ns) {
  constexpr int64_t kPart = 8;
  return (limit_ns - request.enqueue_ns) / kPart;
}

/// Requests per second, up to a factor.
double Rate(size_t count, int64_t run_ns) {
  return static_cast<double>(count) / static_cast<double>(std::max<int64_t>(run_ns, 1));
}

}  // namespace

BatchDecision AdaptiveBatchPolicy::Decide(const QueueSnapshot& snapshot) const {
  BatchDecision decision;
  for (size_t i = 0; i < snapshot.groups.size(); ++i) {
    const PendingGroup& group = snapshot.groups[i];
    const Candidate batch = KeepingDeadlines(group, snapshot);
    const size_t preferred =
        batch.give_up_before_ns == 0 ? PreferredCount(group, batch.count, snapshot.limits.preferred_rows) : 0;
    if (preferred > 0) return {.group = i, .count = preferred};
    const int64_t wait_until_ns = batch.may_grow ? WaitUntil(group, batch, snapshot) : snapshot.now_ns;
    if (wait_until_ns <= snapshot.now_ns) {
      return {.group = i, .count = batch.count, .give_up_before_ns = batch.give_up_before_ns};
    }
    decision.wait_until_ns = std::min(decision.wait_until_ns, wait_until_ns);
  }
  return decision;
}

int64_t AdaptiveBatchPolicy::AnsweredBy(int64_t rows, const QueueSnapshot& snapshot) const {
  if (!snapshot.latency.is_known()) return snapshot.now_ns;
  return snapshot.now_ns + snapshot.latency.At(rows).tail_ns + options_.slack_ns;
}

AdaptiveBatchPolicy::Candidate AdaptiveBatchPolicy::Largest(const PendingGroup& group,
                                                            const QueueSnapshot& snapshot) const {
  Candidate batch{.may_grow = true};
  for (const PendingRequest& request : group.requests) {
    if (batch.count > 0 && batch.rows + request.rows > snapshot.limits.max_rows) {
      batch.may_grow = false;
      break;
    }
    batch.rows += request.rows;
    ++batch.count;
  }
  batch.may_grow = batch.may_grow && batch.rows < snapshot.limits.max_rows;
  return batch;
}

AdaptiveBatchPolicy::Candidate AdaptiveBatchPolicy::KeepingDeadlines(const PendingGroup& group,
                                                                     const QueueSnapshot& snapshot) const {
  const Candidate largest = Largest(group, snapshot);
  const auto candidates = group.requests.first(largest.count);
  int64_t earliest_ns = std::ranges::min(candidates, {}, &PendingRequest::deadline_ns).deadline_ns;
  if (earliest_ns == kNever || AnsweredBy(largest.rows, snapshot) <= earliest_ns) return largest;

  // Fewer requests mean a shorter run and, perhaps, a later first deadline; one is always taken, since the queue has
  // given up those that cannot be answered in time even alone.
  Candidate shrunk;
  earliest_ns = kNever;
  for (const PendingRequest& request : candidates) {
    earliest_ns = std::min(earliest_ns, request.deadline_ns);
    if (shrunk.count > 0 && AnsweredBy(shrunk.rows + request.rows, snapshot) > earliest_ns) break;
    shrunk.rows += request.rows;
    ++shrunk.count;
  }
  if (LeavesOthersInTime(group, shrunk, snapshot)) return shrunk;

  Candidate best = shrunk;
  double best_rate = Rate(shrunk.count, snapshot.latency.At(shrunk.rows).typical_ns);
  for (const LatencyTable::Entry& entry : snapshot.latency.entries) {
    const int64_t rows = std::min(entry.rows, snapshot.limits.max_rows);
    if (rows <= shrunk.rows) continue;  // gives up the hurried, and answers no more for it
    const Candidate candidate = GivingUp(group, rows, snapshot);
    const double rate = Rate(candidate.count, snapshot.latency.At(candidate.rows).typical_ns);
    if (candidate.count > 0 && rate > best_rate) {
      best = candidate;
      best_rate = rate;
    }
  }
  return best;
}

bool AdaptiveBatchPolicy::LeavesOthersInTime(const PendingGroup& group, const Candidate& first,
                                             const QueueSnapshot& snapshot) const {
  int64_t begin_ns = snapshot.now_ns + snapshot.latency.At(first.rows).typical_ns;
  int64_t rows = 0;
  int64_t earliest_ns = kNever;
  int64_t rows_seen = 0;
  for (const PendingRequest& request : group.requests.subspan(first.count)) {
    if (rows_seen > kBatchesAhead * snapshot.limits.max_rows) break;
    rows_seen += request.rows;
    if (rows > 0 && rows + request.rows > snapshot.limits.max_rows) {
      const LatencyTable::Entry run = snapshot.latency.At(rows);
      if (begin_ns + run.tail_ns + options_.slack_ns > earliest_ns) return false;
      begin_ns += run.typical_ns;
      rows = 0;
      earliest_ns = kNever;
    }
    rows += request.rows;
    earliest_ns = std::min(earliest_ns, request.deadline_ns);
  }
  return rows == 0 || begin_ns + snapshot.latency.At(rows).tail_ns + options_.slack_ns <= earliest_ns;
}

AdaptiveBatchPolicy::Candidate AdaptiveBatchPolicy::GivingUp(const PendingGroup& group, int64_t rows,
                                                             const QueueSnapshot& snapshot) const {
  Candidate batch{.give_up_before_ns = AnsweredBy(rows, snapshot)};
  int64_t rows_seen = 0;
  for (const PendingRequest& request : group.requests) {
    if (rows_seen > kBatchesAhead * snapshot.limits.max_rows) break;
    rows_seen += request.rows;
    if (request.deadline_ns < batch.give_up_before_ns) continue;
    if (batch.rows + request.rows > rows) break;
    batch.rows += request.rows;
    ++batch.count;
  }
  return batch;
}

int64_t AdaptiveBatchPolicy::WaitUntil(const PendingGroup& group, const Candidate& batch,
                                       const QueueSnapshot& snapshot) const {
  const auto requests = group.requests.first(batch.count);
  const int64_t oldest_ns = std::ranges::min(requests, {}, &PendingRequest::enqueue_ns).enqueue_ns;
  const int64_t now_ns = snapshot.now_ns;
  int64_t until_ns = now_ns;
  int64_t more = 1;
  if (snapshot.limits.max_queue_delay_ns != kAdaptiveDelay) {
    until_ns = oldest_ns + snapshot.limits.max_queue_delay_ns;
  } else if (snapshot.arrivals.gap_ns != kNever && snapshot.latency.is_known()) {
    const int64_t gap_ns = std::max<int64_t>(snapshot.arrivals.gap_ns, 1);
    more = std::max<int64_t>(1, options_.shortest_wait_ns / gap_ns);
    const int64_t rows_of_one = std::max<int64_t>(1, batch.rows / static_cast<int64_t>(batch.count));
    const int64_t without_ns = snapshot.latency.At(batch.rows).typical_ns;
    if (without_ns <= options_.short_run_ns) return now_ns;
    const int64_t larger_ns = snapshot.latency.At(batch.rows + more * rows_of_one).typical_ns;
    const bool pays =
        Rate(batch.count + static_cast<size_t>(more), more * gap_ns + larger_ns) > Rate(batch.count, without_ns);
    if (!pays) return now_ns;
    until_ns = std::min(snapshot.arrivals.last_ns + kGapsToWait * more * gap_ns, oldest_ns + without_ns);
  }
  const int64_t run_ns = AnsweredBy(batch.rows + more, snapshot) - now_ns;
  for (const PendingRequest& request : requests) {
    if (request.deadline_ns != kNever) {
      until_ns = std::min(until_ns, request.deadline_ns - std::max(run_ns, Reserve(request, request.deadline_ns)));
    }
    if (request.start_by_ns != kNever) {
      until_ns = std::min(until_ns, request.start_by_ns - Reserve(request, request.start_by_ns));
    }
  }
  return until_ns;
}

}  // namespace gristmill
