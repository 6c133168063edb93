// SPDX-License-Identifier: Apache-2.0
// What one decision of the batch policy costs, by how many requests wait, with deadlines and without, beside a pass
// over the same requests that only adds up their rows: what nobody who looks at each can do without.
//
//   policy_bench
#include <array>
#include <cstdio>
#include <functional>
#include <vector>

#include "batching/adaptive_batch_policy.h"
#include "timing.h"

namespace {

using gristmill::AdaptiveBatchPolicy;
using gristmill::BatchDecision;
using gristmill::kNever;
using gristmill::LatencyTable;
using gristmill::PendingGroup;
using gristmill::PendingRequest;

constexpr int64_t kNowNs = 1'000'000'000;
constexpr int64_t kMaxRows = 64;

/// As LatencyProfile has them: 1, 2, 3, 4, 6, 8 and so on.
std::vector<LatencyTable::Entry> Latencies() {
  std::vector<LatencyTable::Entry> entries;
  for (const int64_t rows : {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64}) {
    const int64_t typical_ns = 1'000'000 + 30'000 * rows;
    entries.push_back(
        {.rows = rows, .floor_ns = typical_ns * 9 / 10, .typical_ns = typical_ns, .tail_ns = typical_ns * 3 / 2});
  }
  return entries;
}

/// Came one after the other, 20 us apart.
std::vector<PendingRequest> Requests(size_t count, int64_t deadline_ns) {
  std::vector<PendingRequest> requests;
  for (size_t i = 0; i < count; ++i) {
    const int64_t enqueue_ns = kNowNs - static_cast<int64_t>(count - i) * 20'000;
    requests.push_back({.rows = 1,
                        .enqueue_ns = enqueue_ns,
                        .deadline_ns = deadline_ns == kNever ? kNever : enqueue_ns + deadline_ns});
  }
  return requests;
}

void Run(size_t count, int64_t deadline_ns, const char* name) {
  const AdaptiveBatchPolicy policy;
  const auto entries = Latencies();
  const auto requests = Requests(count, deadline_ns);
  const std::array<PendingGroup, 1> groups = {{{requests}}};
  const auto decide = [&] {
    const BatchDecision decision =
        policy.Decide({.groups = groups,
                       .limits = {.max_rows = kMaxRows, .max_queue_delay_ns = gristmill::kAdaptiveDelay},
                       .latency = {.entries = entries},
                       .arrivals = {.gap_ns = 20'000, .last_ns = kNowNs - 20'000},
                       .now_ns = kNowNs});
    micro::Keep(&decision);
  };
  const auto add = [&] {
    int64_t rows = 0;
    for (const PendingRequest& request : requests) {
      rows += request.rows;
      micro::Keep(&rows);
    }
  };
  const std::vector<double> ns = micro::MedianNs({decide, add});
  std::printf("%5zu requests, %-14s decision %8.1f ns   a pass over them %8.1f ns   (%.1fx)\n", count, name, ns[0],
              ns[1], ns[0] / ns[1]);
}

}  // namespace

int main() {
  for (const size_t count : {1, 16, 64, 256}) {
    Run(count, kNever, "no deadlines");
    Run(count, 50'000'000, "late deadlines");
    Run(count, 3'000'000, "near deadlines");
  }
  return 0;
}
