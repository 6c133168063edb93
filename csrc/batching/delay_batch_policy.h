// SPDX-License-Identifier: Apache-2.0
// DelayBatchPolicy: largest batch that is there, preferred sizes first, waiting at most max_queue_delay for more.
//
// For each group, oldest first:
//   - requests up to max_rows are counted; one request is always taken, however many rows it has;
//   - if the rows of the first k requests add up to a preferred size, the largest such k goes at once;
//   - otherwise, if the group cannot grow (max_rows reached, or the next request does not fit) or its oldest request
//     has waited max_queue_delay, all that were counted go;
//   - otherwise the group waits, until then or until the first deadline in it, whose owner is to hear of it in time.
// The first group that can go goes, so the oldest ripe request is never overtaken by a fuller group.
#pragma once

#include "core/batch_policy.h"

namespace gristmill {

class DelayBatchPolicy final : public BatchPolicy {
 public:
  BatchDecision Decide(const QueueSnapshot& snapshot) const override;
};

}  // namespace gristmill
