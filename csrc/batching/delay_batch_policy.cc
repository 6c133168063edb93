// SPDX-License-Identifier: Apache-2.0
#include "batching/delay_batch_policy.h"

#include <algorithm>

namespace gristmill {
namespace {

/// How many requests of `group` may go now; 0 if it should wait for more.
size_t CountToTake(const PendingGroup& group, const BatchLimits& limits, bool ripe) {
  int64_t rows = 0;
  size_t count = 0;
  size_t preferred_count = 0;
  bool full = false;
  for (const PendingRequest& request : group.requests) {
    if (count > 0 && rows + request.rows > limits.max_rows) {
      full = true;
      break;
    }
    rows += request.rows;
    ++count;
    if (std::ranges::binary_search(limits.preferred_rows, rows)) preferred_count = count;
  }
  if (preferred_count > 0) return preferred_count;
  return full || rows >= limits.max_rows || ripe ? count : 0;
}

int64_t EarliestDeadlineNs(const PendingGroup& group) {
  return std::ranges::min_element(group.requests, {}, &PendingRequest::deadline_ns)->deadline_ns;
}

}  // namespace

BatchDecision DelayBatchPolicy::Decide(const QueueSnapshot& snapshot) const {
  BatchDecision decision;
  for (size_t i = 0; i < snapshot.groups.size(); ++i) {
    const PendingGroup& group = snapshot.groups[i];
    const int64_t ripe_at_ns = group.requests.front().enqueue_ns + snapshot.limits.max_queue_delay_ns;
    decision.count = CountToTake(group, snapshot.limits, ripe_at_ns <= snapshot.now_ns);
    if (decision.count > 0) {
      decision.group = i;
      return decision;
    }
    decision.wait_until_ns = std::min({decision.wait_until_ns, ripe_at_ns, EarliestDeadlineNs(group)});
  }
  return decision;
}

}  // namespace gristmill
