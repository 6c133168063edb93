// SPDX-License-Identifier: Apache-2.0
// BatchPolicy: decides, when an executor is free, what it runs next or how long it waits.
//
// A pure function: no clock, no lock, no memory of earlier calls. It sees sizes, times and limits, never tensors.
// Thread-safety: const and stateless, so any thread may call it.
//
//   BatchDecision decision = policy.Decide({.groups = groups, .limits = limits, .now_ns = now});
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/clock.h"

namespace gristmill {

struct PendingRequest {
  int64_t rows = 1;
  int64_t enqueue_ns = 0;
  int64_t deadline_ns = kNever;
};

/// Requests that may share a batch, oldest first. Never empty. It may be cut off once it holds more than max_rows rows.
struct PendingGroup {
  std::span<const PendingRequest> requests;
};

struct BatchLimits {
  int64_t max_rows = 1;
  /// 0: never wait for company.
  int64_t max_queue_delay_ns = 0;
  /// Ascending. Empty: only max_rows.
  std::span<const int64_t> preferred_rows;
};

struct QueueSnapshot {
  /// In the order of their oldest request.
  std::span<const PendingGroup> groups;
  BatchLimits limits;
  int64_t now_ns = 0;
};

/// Either take the first `count` > 0 requests of `group`, or (count 0) ask again at `wait_until_ns` or on a new
/// arrival.
struct BatchDecision {
  size_t group = 0;
  size_t count = 0;
  int64_t wait_until_ns = kNever;
};

class BatchPolicy {
 public:
  virtual ~BatchPolicy() = default;
  virtual BatchDecision Decide(const QueueSnapshot& snapshot) const = 0;
};

}  // namespace gristmill
