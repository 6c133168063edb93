// SPDX-License-Identifier: Apache-2.0
#include "engine/statistics.h"

#include <algorithm>

namespace gristmill {

StatisticsSnapshot operator+(StatisticsSnapshot a, const StatisticsSnapshot& b) {
  a.last_inference_ms = std::max(a.last_inference_ms, b.last_inference_ms);
  a.inference_count += b.inference_count;
  a.execution_count += b.execution_count;
  a.success += b.success;
  a.fail += b.fail;
  a.queue += b.queue;
  a.compute_input += b.compute_input;
  a.compute_infer += b.compute_infer;
  a.compute_output += b.compute_output;
  a.cache_hit += b.cache_hit;
  a.cache_miss += b.cache_miss;
  for (size_t i = 0; i < kDropReasons; ++i) a.dropped[i] += b.dropped[i];
  for (const auto& [rows, totals] : b.by_batch_size) {
    BatchSizeTotals& sum = a.by_batch_size[rows];
    sum.compute_input += totals.compute_input;
    sum.compute_infer += totals.compute_infer;
    sum.compute_output += totals.compute_output;
  }
  return a;
}

void Statistics::RecordExecution(const ExecutionRecord& record) {
  MutexLock lock(mu_);
  totals_.last_inference_ms = record.wall_ms;
  totals_.inference_count += static_cast<uint64_t>(record.rows);
  totals_.execution_count += 1;
  totals_.success.Add(record.requests, record.request_ns);
  totals_.queue.Add(record.requests, record.queue_ns);
  // Every request of a batch spends the batch's compute time, so each is charged with the whole of it.
  const int64_t requests = static_cast<int64_t>(record.requests);
  totals_.compute_input.Add(record.requests, record.compute_input_ns * requests);
  totals_.compute_infer.Add(record.requests, record.compute_infer_ns * requests);
  totals_.compute_output.Add(record.requests, record.compute_output_ns * requests);
  BatchSizeTotals& batch = totals_.by_batch_size[record.rows];
  batch.compute_input.Add(1, record.compute_input_ns);
  batch.compute_infer.Add(1, record.compute_infer_ns);
  batch.compute_output.Add(1, record.compute_output_ns);
}

void Statistics::RecordFailures(uint64_t requests, int64_t total_ns) {
  MutexLock lock(mu_);
  totals_.fail.Add(requests, total_ns);
}

void Statistics::RecordDrop(DropReason reason, int64_t waited_ns) {
  MutexLock lock(mu_);
  ++totals_.dropped[static_cast<size_t>(reason)];
  totals_.fail.Add(1, waited_ns);
}

void Statistics::RecordEnsemble(int64_t wall_ms, int64_t rows, int64_t request_ns) {
  MutexLock lock(mu_);
  totals_.last_inference_ms = wall_ms;
  totals_.inference_count += static_cast<uint64_t>(rows);
  totals_.success.Add(1, request_ns);
}

void Statistics::RecordCacheHit(const CacheHitRecord& record) {
  MutexLock lock(mu_);
  totals_.last_inference_ms = record.wall_ms;
  totals_.success.Add(1, record.request_ns);
  totals_.cache_hit.Add(1, record.look_up_ns);
}

void Statistics::RecordCacheMiss(int64_t duration_ns) {
  MutexLock lock(mu_);
  totals_.cache_miss.Add(1, duration_ns);
}

StatisticsSnapshot Statistics::Snapshot() const {
  MutexLock lock(mu_);
  return totals_;
}

}  // namespace gristmill
