// SPDX-License-Identifier: Apache-2.0
#include "simulation/peer_policies.h"

#include <algorithm>

namespace gristmill {

BatchDecision ClipperPolicy::Decide(const QueueSnapshot& snapshot) const {
  const int64_t rows = std::min(static_cast<int64_t>(rows_), snapshot.limits.max_rows);
  return {.count = std::min(snapshot.groups[0].requests.size(), static_cast<size_t>(rows))};
}

void ClipperPolicy::Observe(int64_t rows, int64_t duration_ns) {
  if (duration_ns > objective_ns_) {
    rows_ = std::max(1.0, rows_ * 0.9);
  } else if (rows == static_cast<int64_t>(rows_)) {
    rows_ += 1;
  }
}

NexusPolicy::NexusPolicy(int64_t objective_ns, std::span<const int64_t> run_ns) : run_ns_(run_ns) {
  while (rows_ < run_ns.size() && 2 * run_ns[rows_] <= objective_ns) ++rows_;
}

BatchDecision NexusPolicy::Decide(const QueueSnapshot& snapshot) const {
  const auto requests = snapshot.groups[0].requests;
  for (size_t first = 0; first < requests.size(); ++first) {
    const size_t count = std::min(rows_, requests.size() - first);
    if (snapshot.now_ns + run_ns_[count - 1] <= requests[first].deadline_ns) {
      return {.count = count, .give_up_before_ns = requests[first].deadline_ns};
    }
  }
  return {.count = 1, .give_up_before_ns = requests.back().deadline_ns};
}

BatchDecision ClockworkPolicy::Decide(const QueueSnapshot& snapshot) const {
  const auto requests = snapshot.groups[0].requests;
  const size_t most = std::min(requests.size(), run_ns_.size());
  size_t count = 1;
  while (2 * count <= most && snapshot.now_ns + run_ns_[2 * count - 1] <= requests[0].deadline_ns) count *= 2;
  return {.count = count};
}

}  // namespace gristmill
