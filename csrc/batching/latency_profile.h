// SPDX-License-Identifier: Apache-2.0
// LatencyProfile: what recent runs of a model have taken, by the rows of their batch.
//
// Runs are kept by bucket: 1, 2, 3, 4, 6, 8, 12, 16 and so on up to max_rows; a run counts for the smallest bucket that
// holds it, the last 100 runs of each bucket count. What no run has shown is filled in from the buckets that are known:
// between two of them by a straight line; above the largest in proportion to rows; below the smallest as much as that
// one takes, but its floor in proportion, since nothing shows that less work could not be done faster.
// Thread-safety: none; its owner holds a lock.
//
//   profile.Record(/*rows=*/8, /*duration_ns=*/412'000, now_ns);
//   const LatencyTable table = profile.table();   // valid until the next Record
#pragma once

#include <cstdint>
#include <vector>

#include "core/latency_table.h"

namespace gristmill {

class LatencyProfile {
 public:
  explicit LatencyProfile(int64_t max_rows);

  void Record(int64_t rows, int64_t duration_ns, int64_t now_ns);

  LatencyTable table() const { return {.entries = entries_}; }

  /// Whether a request may be refused because of what runs have taken. An estimate goes stale, and then the next
  /// requests are run to see, or a model that was slow for a while could refuse all work for ever.
  bool is_fresh(int64_t now_ns) const { return now_ns < fresh_until_ns_; }

 private:
  static constexpr size_t kRuns = 100;

  struct Bucket {
    int64_t rows = 0;
    std::vector<int64_t> runs_ns;  // a ring once it holds kRuns
    size_t next = 0;
    LatencyTable::Entry measured;
  };

  void Summarise(Bucket& bucket);
  void FillIn();

  std::vector<Bucket> buckets_;
  std::vector<LatencyTable::Entry> entries_;
  std::vector<int64_t> scratch_;
  int64_t fresh_until_ns_ = 0;
};

}  // namespace gristmill
