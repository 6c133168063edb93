// SPDX-License-Identifier: Apache-2.0
// Simulate: a trace of arrivals through the server's own scheduler, in simulated time.
//
// What a server adds around its scheduler (transport, threads that wake up late) takes no time here.
//
//   const SimulationResult result = Simulate({.arrivals_ns = trace, .run_ns = by_rows, .policy = &policy});
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/batch_policy.h"
#include "core/clock.h"

namespace gristmill {

struct SimulationOptions {
  std::span<const int64_t> arrivals_ns;  // ascending, of requests of one row
  std::span<const int64_t> run_ns;       // what a run takes, typically, by rows - 1
  /// Standard deviation of the logarithm of a run's time.
  double spread = 0;
  uint64_t seed = 0;
  int executors = 1;
  int64_t max_queue_delay_ns = kAdaptiveDelay;
  /// From a request's arrival to its deadline. kNever: the scheduler is not told of any, refuses nothing and gives up
  /// nothing.
  int64_t deadline_ns = kNever;
  const BatchPolicy* policy = nullptr;
  /// Told of every run as it ends.
  std::function<void(int64_t rows, int64_t duration_ns)> on_run = [](int64_t, int64_t) {};
};

struct SimulationResult {
  std::vector<int64_t> answered_ns;  // by request; kNever: it was not run
  std::vector<int64_t> batch_rows;   // by run
};

SimulationResult Simulate(const SimulationOptions& options);

}  // namespace gristmill
