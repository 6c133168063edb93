// SPDX-License-Identifier: Apache-2.0
// How other systems form batches, for comparison, from their publications: as BatchPolicies, in the same queue.
//
// All know what runs take from the start, by rows - 1, and see requests that have one deadline and one row each.
// Clipper: Crankshaw et al., NSDI 2017. Nexus: Shen et al., SOSP 2019. Clockwork: Gujarati et al., OSDI 2020.
#pragma once

#include <cstdint>
#include <span>

#include "core/batch_policy.h"

namespace gristmill {

/// Takes what waits up to a size that grows by one with every full batch that keeps the objective, and shrinks by a
/// tenth with every one that does not. Knows no deadline of a request.
class ClipperPolicy final : public BatchPolicy {
 public:
  explicit ClipperPolicy(int64_t objective_ns) : objective_ns_(objective_ns) {}
  BatchDecision Decide(const QueueSnapshot& snapshot) const override;
  void Observe(int64_t rows, int64_t duration_ns);

 private:
  const int64_t objective_ns_;
  double rows_ = 1;
};

/// The batch size is fixed: the largest that, waiting for one run before its own, keeps the objective. Early drop: what
/// cannot wait for a run of that size is given up.
class NexusPolicy final : public BatchPolicy {
 public:
  NexusPolicy(int64_t objective_ns, std::span<const int64_t> run_ns);
  BatchDecision Decide(const QueueSnapshot& snapshot) const override;

 private:
  const std::span<const int64_t> run_ns_;
  size_t rows_ = 1;
};

/// The largest power of two whose run keeps the earliest deadline in it.
class ClockworkPolicy final : public BatchPolicy {
 public:
  explicit ClockworkPolicy(std::span<const int64_t> run_ns) : run_ns_(run_ns) {}
  BatchDecision Decide(const QueueSnapshot& snapshot) const override;

 private:
  const std::span<const int64_t> run_ns_;
};

}  // namespace gristmill
