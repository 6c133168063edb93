// SPDX-License-Identifier: Apache-2.0
// BatchPolicy: decides, when an executor is free, what it runs next or how long it waits.
//
// A pure function: no clock, no lock, no memory of earlier calls. It sees sizes, times and limits, never tensors.
// Thread-safety: const and stateless, so any thread may call it.
//
//   BatchDecision decision = policy.Decide({.groups = groups, .limits = limits, .latency = table, .now_ns = now});
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/clock.h"
#include "core/latency_table.h"

namespace gristmill {

struct PendingRequest {
  int64_t rows = 1;
  int64_t enqueue_ns = 0;
  /// When its answer must be there.
  int64_t deadline_ns = kNever;
  /// When its run must have begun.
  int64_t start_by_ns = kNever;
};

/// Requests that may share a batch, in the order in which they are to be run. Never empty. It may be cut off once it
/// holds several times max_rows rows.
struct PendingGroup {
  std::span<const PendingRequest> requests;
};

/// A max_queue_delay_ns that is left to the policy.
inline constexpr int64_t kAdaptiveDelay = -1;

struct BatchLimits {
  int64_t max_rows = 1;
  /// How long the oldest request may wait for company. 0: never; kAdaptiveDelay: while it pays.
  int64_t max_queue_delay_ns = 0;
  /// Ascending. Empty: only max_rows.
  std::span<const int64_t> preferred_rows;
};

/// What has been coming lately.
struct ArrivalRate {
  /// Between one request and the next, on average. kNever: unknown.
  int64_t gap_ns = kNever;
  int64_t last_ns = 0;
};

struct QueueSnapshot {
  /// In the order in which they are to be served.
  std::span<const PendingGroup> groups;
  BatchLimits limits;
  LatencyTable latency;
  ArrivalRate arrivals;
  int64_t now_ns = 0;
};

/// Either take the first `count` > 0 requests of `group`, passing over and giving up those that must be answered before
/// `give_up_before_ns`; or (count 0) ask again at `wait_until_ns` or on a new arrival.
struct BatchDecision {
  size_t group = 0;
  size_t count = 0;
  int64_t give_up_before_ns = 0;
  int64_t wait_until_ns = kNever;
};

class BatchPolicy {
 public:
  virtual ~BatchPolicy() = default;
  virtual BatchDecision Decide(const QueueSnapshot& snapshot) const = 0;
};

}  // namespace gristmill
