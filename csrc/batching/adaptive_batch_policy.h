// SPDX-License-Identifier: Apache-2.0
// AdaptiveBatchPolicy: the batch that does most for its callers, by what runs have taken so far.
//
// For each group, in order:
//   - Size. As many requests as max_rows holds (one request is always taken, however many rows it has), but no batch
//     that would be answered after the earliest deadline in it. Where keeping the hurried would make the rest late, and
//     giving them up answers more requests in time per second, they are given up.
//   - Preferred sizes. If the first k requests add up to one, the largest such k goes at once.
//   - Waiting. A batch that cannot grow goes. Another waits for company: until its oldest request has waited
//     max_queue_delay or, with kAdaptiveDelay, while one more request is expected to make up for the time until it
//     comes: (b + 1) / (gap + L(b + 1)) > b / L(b), and never longer than one run takes. It never waits until a
//     deadline could be missed.
// The first group that can go goes, so the first ripe request is never overtaken by a fuller group.
#pragma once

#include "core/batch_policy.h"

namespace gristmill {

struct AdaptiveBatchPolicyOptions {
  /// Added to every run: for the answer's way out.
  int64_t slack_ns = 0;
  /// The shortest wait that a thread can keep. More requests than one are expected in it when they come faster.
  int64_t shortest_wait_ns = 0;
  /// A run that takes no longer is not worth a wait: what comes meanwhile is company enough for the next.
  int64_t short_run_ns = -1;
};

class AdaptiveBatchPolicy final : public BatchPolicy {
 public:
  explicit AdaptiveBatchPolicy(AdaptiveBatchPolicyOptions options = {}) : options_(options) {}

  BatchDecision Decide(const QueueSnapshot& snapshot) const override;

 private:
  /// What of one group goes now, if it does not wait.
  struct Candidate {
    size_t count = 0;
    int64_t rows = 0;
    int64_t give_up_before_ns = 0;
    bool may_grow = false;
  };

  Candidate Largest(const PendingGroup& group, const QueueSnapshot& snapshot) const;
  Candidate KeepingDeadlines(const PendingGroup& group, const QueueSnapshot& snapshot) const;
  bool LeavesOthersInTime(const PendingGroup& group, const Candidate& first, const QueueSnapshot& snapshot) const;
  Candidate GivingUp(const PendingGroup& group, int64_t rows, const QueueSnapshot& snapshot) const;
  int64_t WaitUntil(const PendingGroup& group, const Candidate& batch, const QueueSnapshot& snapshot) const;
  int64_t AnsweredBy(int64_t rows, const QueueSnapshot& snapshot) const;

  const AdaptiveBatchPolicyOptions options_;
};

}  // namespace gristmill
