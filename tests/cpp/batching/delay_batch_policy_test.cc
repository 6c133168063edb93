// SPDX-License-Identifier: Apache-2.0
#include "batching/delay_batch_policy.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace gristmill {
namespace {

constexpr int64_t kNow = 1'000'000;

std::vector<PendingRequest> Requests(std::initializer_list<int64_t> rows, int64_t enqueue_ns = kNow) {
  std::vector<PendingRequest> requests;
  for (int64_t r : rows) requests.push_back({.rows = r, .enqueue_ns = enqueue_ns});
  return requests;
}

BatchDecision Decide(const std::vector<std::vector<PendingRequest>>& groups, BatchLimits limits) {
  std::vector<PendingGroup> views;
  for (const auto& group : groups) views.push_back({.requests = group});
  return DelayBatchPolicy().Decide({.groups = views, .limits = limits, .now_ns = kNow});
}

TEST(DelayBatchPolicy, TakesWhatIsThereWhenItMayNotWait) {
  EXPECT_EQ(Decide({Requests({1, 2, 1})}, {.max_rows = 8}).count, 3u);
}

TEST(DelayBatchPolicy, NeverExceedsMaxRows) {
  EXPECT_EQ(Decide({Requests({3, 3, 3})}, {.max_rows = 8}).count, 2u);
  EXPECT_EQ(Decide({Requests({3, 3, 3})}, {.max_rows = 9}).count, 3u);
}

TEST(DelayBatchPolicy, TakesARequestLargerThanTheLimitAlone) {
  EXPECT_EQ(Decide({Requests({5, 1})}, {.max_rows = 1}).count, 1u);
}

TEST(DelayBatchPolicy, WaitsForCompanyUntilTheOldestIsRipe) {
  const BatchDecision decision = Decide({Requests({1, 1}, kNow - 300)}, {.max_rows = 8, .max_queue_delay_ns = 500});
  EXPECT_EQ(decision.count, 0u);
  EXPECT_EQ(decision.wait_until_ns, kNow + 200);
}

TEST(DelayBatchPolicy, LooksAgainAtTheFirstDeadline) {
  std::vector<PendingRequest> requests = Requests({1, 1});
  requests[1].deadline_ns = kNow + 50;
  const BatchDecision decision = Decide({Requests({1}), requests}, {.max_rows = 8, .max_queue_delay_ns = 500});
  EXPECT_EQ(decision.count, 0u);
  EXPECT_EQ(decision.wait_until_ns, kNow + 50);
}

TEST(DelayBatchPolicy, SendsARipeBatch) {
  EXPECT_EQ(Decide({Requests({1, 1}, kNow - 500)}, {.max_rows = 8, .max_queue_delay_ns = 500}).count, 2u);
}

TEST(DelayBatchPolicy, DoesNotWaitWhenTheBatchCannotGrow) {
  EXPECT_EQ(Decide({Requests({4, 4})}, {.max_rows = 8, .max_queue_delay_ns = 500}).count, 2u);
  EXPECT_EQ(Decide({Requests({4, 3, 2})}, {.max_rows = 8, .max_queue_delay_ns = 500}).count, 2u);
}

TEST(DelayBatchPolicy, SendsTheLargestPreferredSizeAtOnce) {
  const std::vector<int64_t> preferred = {2, 4};
  const BatchLimits limits = {.max_rows = 8, .max_queue_delay_ns = 500, .preferred_rows = preferred};
  EXPECT_EQ(Decide({Requests({1})}, limits).count, 0u);
  EXPECT_EQ(Decide({Requests({1, 1, 1})}, limits).count, 2u);
  EXPECT_EQ(Decide({Requests({1, 1, 1, 1, 1})}, limits).count, 4u);
  EXPECT_EQ(Decide({Requests({3, 2})}, limits).count, 0u);
}

TEST(DelayBatchPolicy, PrefersTheOldestRipeGroup) {
  const BatchLimits limits = {.max_rows = 2, .max_queue_delay_ns = 500};
  const BatchDecision ripe = Decide({Requests({1}, kNow - 600), Requests({1, 1}, kNow - 10)}, limits);
  EXPECT_EQ(ripe.group, 0u);
  EXPECT_EQ(ripe.count, 1u);
  const BatchDecision full = Decide({Requests({1}, kNow - 100), Requests({1, 1}, kNow - 10)}, limits);
  EXPECT_EQ(full.group, 1u);
  EXPECT_EQ(full.count, 2u);
}

TEST(DelayBatchPolicy, WaitsForTheEarliestOfSeveralGroups) {
  const BatchDecision decision =
      Decide({Requests({1}, kNow - 100), Requests({1}, kNow - 50)}, {.max_rows = 2, .max_queue_delay_ns = 500});
  EXPECT_EQ(decision.count, 0u);
  EXPECT_EQ(decision.wait_until_ns, kNow + 400);
}

TEST(DelayBatchPolicy, HoldsItsInvariantsOnRandomQueues) {
  std::mt19937_64 random(7);
  const auto draw = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  for (int round = 0; round < 20'000; ++round) {
    const int64_t max_rows = draw(1, 16);
    const int64_t delay_ns = draw(0, 3) * 100;
    std::vector<int64_t> preferred;
    for (int64_t size = 1; size <= max_rows; ++size) {
      if (draw(0, 4) == 0) preferred.push_back(size);
    }
    std::vector<std::vector<PendingRequest>> groups(static_cast<size_t>(draw(1, 4)));
    int64_t earliest_ripe_ns = kNever, earliest_deadline_ns = kNever;
    for (auto& group : groups) {
      const int64_t oldest_ns = kNow - draw(0, 400);
      earliest_ripe_ns = std::min(earliest_ripe_ns, oldest_ns + delay_ns);
      for (int64_t i = draw(1, 20); i > 0; --i) {
        const int64_t deadline_ns = draw(0, 3) == 0 ? kNow + draw(1, 400) : kNever;
        earliest_deadline_ns = std::min(earliest_deadline_ns, deadline_ns);
        group.push_back({.rows = draw(1, max_rows), .enqueue_ns = oldest_ns, .deadline_ns = deadline_ns});
      }
    }
    const BatchDecision decision =
        Decide(groups, {.max_rows = max_rows, .max_queue_delay_ns = delay_ns, .preferred_rows = preferred});
    if (decision.count == 0) {
      ASSERT_GT(earliest_ripe_ns, kNow) << "a ripe group was made to wait";
      ASSERT_EQ(decision.wait_until_ns, std::min(earliest_ripe_ns, earliest_deadline_ns));
      continue;
    }
    ASSERT_LT(decision.group, groups.size());
    ASSERT_LE(decision.count, groups[decision.group].size());
    int64_t rows = 0;
    for (size_t i = 0; i < decision.count; ++i) rows += groups[decision.group][i].rows;
    ASSERT_LE(rows, max_rows);
  }
}

}  // namespace
}  // namespace gristmill
