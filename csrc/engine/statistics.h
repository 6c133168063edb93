// SPDX-License-Identifier: Apache-2.0
// Statistics: what a model version has done, counted as Triton counts it.
//
// Thread-safety: thread-safe; one short lock per batch, none per request.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>

#include "core/mutex.h"

namespace gristmill {

struct DurationTotal {
  uint64_t count = 0;
  uint64_t ns = 0;

  void Add(uint64_t times, int64_t total_ns) {
    count += times;
    ns += total_ns > 0 ? static_cast<uint64_t>(total_ns) : 0;
  }
  DurationTotal& operator+=(const DurationTotal& other) {
    count += other.count;
    ns += other.ns;
    return *this;
  }
};

struct BatchSizeTotals {
  DurationTotal compute_input;
  DurationTotal compute_infer;
  DurationTotal compute_output;
};

/// Why a request was not run.
enum class DropReason {
  kQueueFull,     // refused: as many wait as may
  kUnattainable,  // refused: what waits already takes longer than its deadline leaves
  kExpired,       // its deadline passed before or while it waited
  kHopeless,      // given up while it waited: it could not have been answered in time
  kTimeout,       // it did not begin to run within its timeout
  kCancelled,
};
inline constexpr size_t kDropReasons = 6;

struct StatisticsSnapshot {
  int64_t last_inference_ms = 0;  // since the Unix epoch; 0: never
  uint64_t inference_count = 0;   // rows
  uint64_t execution_count = 0;   // runs of the model
  DurationTotal success;
  DurationTotal fail;
  DurationTotal queue;
  DurationTotal compute_input;
  DurationTotal compute_infer;
  DurationTotal compute_output;
  DurationTotal cache_hit;   // looking up, and waiting for an equal request; `success` counts them as well
  DurationTotal cache_miss;  // looking up, and keeping the answer
  std::array<uint64_t, kDropReasons> dropped{};  // by DropReason; counted in `fail` as well
  std::map<int64_t, BatchSizeTotals> by_batch_size;
};

/// The sum of both.
StatisticsSnapshot operator+(StatisticsSnapshot a, const StatisticsSnapshot& b);

/// One run of the model, or the failures of one.
struct ExecutionRecord {
  int64_t rows = 0;
  uint64_t requests = 0;
  int64_t wall_ms = 0;
  int64_t request_ns = 0;  // summed over requests: from arrival to answer
  int64_t queue_ns = 0;    // summed over requests
  int64_t compute_input_ns = 0;
  int64_t compute_infer_ns = 0;
  int64_t compute_output_ns = 0;
};

/// One request that was answered from the cache.
struct CacheHitRecord {
  int64_t wall_ms = 0;
  int64_t request_ns = 0;
  int64_t look_up_ns = 0;
};

class Statistics {
 public:
  void RecordExecution(const ExecutionRecord& record);
  /// `total_ns`: summed over the failed requests, from arrival to answer.
  void RecordFailures(uint64_t requests, int64_t total_ns);
  /// One request that was not run, `waited_ns` after its arrival.
  void RecordDrop(DropReason reason, int64_t waited_ns);
  /// A request that other models have answered together.
  void RecordEnsemble(int64_t wall_ms, int64_t rows, int64_t request_ns);
  void RecordCacheHit(const CacheHitRecord& record);
  void RecordCacheMiss(int64_t duration_ns);
  StatisticsSnapshot Snapshot() const;

 private:
  mutable Mutex mu_;
  StatisticsSnapshot totals_ GUARDED_BY(mu_);
};

}  // namespace gristmill
