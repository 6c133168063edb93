// SPDX-License-Identifier: Apache-2.0
// LatencyTable: how long a model takes, by the rows of a batch. Plain data, borrowed from whoever has measured it.
#pragma once

#include <cstdint>
#include <span>

namespace gristmill {

struct LatencyTable {
  /// Never decreasing from one entry to the next, and floor_ns <= typical_ns <= tail_ns in each.
  struct Entry {
    int64_t rows = 0;
    int64_t floor_ns = 0;    // the fastest run: what takes longer than is left cannot be done in time
    int64_t typical_ns = 0;  // the median: what a run costs in the long run
    int64_t tail_ns = 0;     // nearly always enough: what may be promised
  };

  /// Ascending in rows. Empty: nothing is known, and every estimate is 0.
  std::span<const Entry> entries;

  bool is_known() const { return !entries.empty(); }

  /// The estimate for `rows`: straight lines between the entries, in proportion beyond the last, flat before the first.
  Entry At(int64_t rows) const;
};

}  // namespace gristmill
