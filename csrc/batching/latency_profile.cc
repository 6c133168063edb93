// SPDX-License-Identifier: Apache-2.0
#include "batching/latency_profile.h"

#include <algorithm>

namespace gristmill {
namespace {

/// A machine that stops for a moment now and then must not make every promise as long as the stop.
constexpr int64_t kTailToTypical = 2;

constexpr int64_t kFreshNs = 100'000'000;
constexpr int64_t kFreshRuns = 20;

/// A bucket's summary is made anew for each of its first runs, then once in so many.
constexpr size_t kRunsPerSummary = 8;

int64_t InProportion(int64_t value, int64_t rows, int64_t known_rows) {
  return static_cast<int64_t>(static_cast<double>(value) * static_cast<double>(rows) / static_cast<double>(known_rows));
}

}  // namespace

LatencyProfile::LatencyProfile(int64_t max_rows) {
  for (int64_t rows = 1; rows < max_rows; rows *= 2) {
    buckets_.push_back({.rows = rows, .runs_ns = {}, .next = 0, .measured = {}});
    if (rows > 1 && rows + rows / 2 < max_rows) {
      buckets_.push_back({.rows = rows + rows / 2, .runs_ns = {}, .next = 0, .measured = {}});
    }
  }
  buckets_.push_back({.rows = std::max<int64_t>(max_rows, 1), .runs_ns = {}, .next = 0, .measured = {}});
}

void LatencyProfile::Record(int64_t rows, int64_t duration_ns, int64_t now_ns) {
  auto bucket = std::ranges::lower_bound(buckets_, rows, {}, &Bucket::rows);
  if (bucket == buckets_.end()) --bucket;  // a single request may have more rows than a batch
  if (bucket->runs_ns.size() < kRuns) {
    bucket->runs_ns.push_back(duration_ns);
  } else {
    bucket->runs_ns[bucket->next] = duration_ns;
  }
  bucket->next = (bucket->next + 1) % kRuns;
  fresh_until_ns_ = now_ns + std::max(kFreshNs, kFreshRuns * duration_ns);
  const size_t runs = bucket->runs_ns.size();
  if (runs > kRunsPerSummary && bucket->next % kRunsPerSummary != 0) return;
  Summarise(*bucket);
  FillIn();
}

void LatencyProfile::Summarise(Bucket& bucket) {
  scratch_.assign(bucket.runs_ns.begin(), bucket.runs_ns.end());
  std::ranges::sort(scratch_);
  const size_t last = scratch_.size() - 1;
  bucket.measured = {.rows = bucket.rows,
                     .floor_ns = scratch_.front(),
                     .typical_ns = scratch_[last / 2],
                     .tail_ns = scratch_[last * 99 / 100]};
  bucket.measured.tail_ns = std::min(bucket.measured.tail_ns, kTailToTypical * bucket.measured.typical_ns);
}

void LatencyProfile::FillIn() {
  entries_.clear();
  const Bucket* below = nullptr;
  for (size_t i = 0; i < buckets_.size(); ++i) {
    const Bucket& bucket = buckets_[i];
    if (!bucket.runs_ns.empty()) {
      entries_.push_back(bucket.measured);
      below = &bucket;
    } else if (below == nullptr) {
      const auto above = std::ranges::find_if(buckets_, [](const Bucket& b) { return !b.runs_ns.empty(); });
      LatencyTable::Entry entry = above->measured;
      entry.rows = bucket.rows;
      entry.floor_ns = InProportion(entry.floor_ns, bucket.rows, above->rows);
      entries_.push_back(entry);
    } else {
      const auto above = std::find_if(buckets_.begin() + static_cast<ptrdiff_t>(i), buckets_.end(),
                                      [](const Bucket& b) { return !b.runs_ns.empty(); });
      const LatencyTable::Entry ends[] = {below->measured,
                                          above != buckets_.end() ? above->measured : LatencyTable::Entry{}};
      const LatencyTable known{.entries = std::span(ends).first(above != buckets_.end() ? 2 : 1)};
      entries_.push_back(known.At(bucket.rows));
    }
  }
  // Chance makes more rows look faster than fewer now and then.
  for (size_t i = entries_.size() - 1; i > 0; --i) {
    entries_[i - 1].floor_ns = std::min(entries_[i - 1].floor_ns, entries_[i].floor_ns);
  }
  for (size_t i = 1; i < entries_.size(); ++i) {
    entries_[i].typical_ns = std::max(entries_[i].typical_ns, entries_[i - 1].typical_ns);
    entries_[i].tail_ns = std::max(entries_[i].tail_ns, entries_[i - 1].tail_ns);
  }
}

}  // namespace gristmill
