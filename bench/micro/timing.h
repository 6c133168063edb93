// SPDX-License-Identifier: Apache-2.0
// Short pieces of work timed in turns, so that all see the same machine.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

namespace micro {

inline constexpr int kRounds = 31;
inline constexpr double kRoundNs = 2e6;

inline void Must(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "bench: %s\n", what);
  std::exit(1);
}

/// Keeps the compiler from dropping work whose result nobody reads.
inline void Keep(const void* result) { asm volatile("" : : "r"(result) : "memory"); }

inline double SecondsOf(const std::function<void()>& work, int times) {
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < times; ++i) work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Median ns per call of each, measured in turns so that all see the same machine.
inline std::vector<double> MedianNs(const std::vector<std::function<void()>>& works) {
  std::vector<std::vector<double>> rounds(works.size());
  std::vector<int> times(works.size());
  for (size_t i = 0; i < works.size(); ++i) {
    const double once_ns = SecondsOf(works[i], 1000) * 1e6;
    times[i] = std::max(10, static_cast<int>(kRoundNs / std::max(once_ns, 1.0)));
  }
  for (int round = 0; round < kRounds; ++round) {
    for (size_t i = 0; i < works.size(); ++i) rounds[i].push_back(SecondsOf(works[i], times[i]) * 1e9 / times[i]);
  }
  std::vector<double> medians;
  for (auto& of_one : rounds) {
    std::nth_element(of_one.begin(), of_one.begin() + kRounds / 2, of_one.end());
    medians.push_back(of_one[kRounds / 2]);
  }
  return medians;
}

}  // namespace micro
