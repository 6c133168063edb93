// SPDX-License-Identifier: Apache-2.0
#include "batching/adaptive_batch_policy.h"

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
  return AdaptiveBatchPolicy().Decide({.groups = views, .limits = limits, .now_ns = kNow});
}

TEST(AdaptiveBatchPolicy, TakesWhatIsThereWhenItMayNotWait) {
  EXPECT_EQ(Decide({Requests({1, 2, 1})}, {.max_rows = 8}).count, 3u);
}

TEST(AdaptiveBatchPolicy, NeverExceedsMaxRows) {
  EXPECT_EQ(Decide({Requests({3, 3, 3})}, {.max_rows = 8}).count, 2u);
  EXPECT_EQ(Decide({Requests({3, 3, 3})}, {.max_rows = 9}).count, 3u);
}

TEST(AdaptiveBatchPolicy, TakesARequestLargerThanTheLimitAlone) {
  EXPECT_EQ(Decide({Requests({5, 1})}, {.max_rows = 1}).count, 1u);
}

TEST(AdaptiveBatchPolicy, WaitsForCompanyUntilTheOldestIsRipe) {
  const BatchDecision decision = Decide({Requests({1, 1}, kNow - 300)}, {.max_rows = 8, .max_queue_delay_ns = 500});
  EXPECT_EQ(decision.count, 0u);
  EXPECT_EQ(decision.wait_until_ns, kNow + 200);
}

TEST(AdaptiveBatchPolicy, LooksAgainAtTheFirstDeadline) {
  std::vector<PendingRequest> requests = Requests({1, 1});
  requests[1].deadline_ns = kNow + 50;
  const BatchDecision decision = Decide({Requests({1}), requests}, {.max_rows = 8, .max_queue_delay_ns = 500});
  EXPECT_EQ(decision.count, 0u);
  EXPECT_EQ(decision.wait_until_ns, kNow + 44);  // and keeps an eighth in reserve
}

TEST(AdaptiveBatchPolicy, SendsARipeBatch) {
  EXPECT_EQ(Decide({Requests({1, 1}, kNow - 500)}, {.max_rows = 8, .max_queue_delay_ns = 500}).count, 2u);
}

TEST(AdaptiveBatchPolicy, DoesNotWaitWhenTheBatchCannotGrow) {
  EXPECT_EQ(Decide({Requests({4, 4})}, {.max_rows = 8, .max_queue_delay_ns = 500}).count, 2u);
  EXPECT_EQ(Decide({Requests({4, 3, 2})}, {.max_rows = 8, .max_queue_delay_ns = 500}).count, 2u);
}

TEST(AdaptiveBatchPolicy, SendsTheLargestPreferredSizeAtOnce) {
  const std::vector<int64_t> preferred = {2, 4};
  const BatchLimits limits = {.max_rows = 8, .max_queue_delay_ns = 500, .preferred_rows = preferred};
  EXPECT_EQ(Decide({Requests({1})}, limits).count, 0u);
  EXPECT_EQ(Decide({Requests({1, 1, 1})}, limits).count, 2u);
  EXPECT_EQ(Decide({Requests({1, 1, 1, 1, 1})}, limits).count, 4u);
  EXPECT_EQ(Decide({Requests({3, 2})}, limits).count, 0u);
}

TEST(AdaptiveBatchPolicy, PrefersTheOldestRipeGroup) {
  const BatchLimits limits = {.max_rows = 2, .max_queue_delay_ns = 500};
  const BatchDecision ripe = Decide({Requests({1}, kNow - 600), Requests({1, 1}, kNow - 10)}, limits);
  EXPECT_EQ(ripe.group, 0u);
  EXPECT_EQ(ripe.count, 1u);
  const BatchDecision full = Decide({Requests({1}, kNow - 100), Requests({1, 1}, kNow - 10)}, limits);
  EXPECT_EQ(full.group, 1u);
  EXPECT_EQ(full.count, 2u);
}

TEST(AdaptiveBatchPolicy, WaitsForTheEarliestOfSeveralGroups) {
  const BatchDecision decision =
      Decide({Requests({1}, kNow - 100), Requests({1}, kNow - 50)}, {.max_rows = 2, .max_queue_delay_ns = 500});
  EXPECT_EQ(decision.count, 0u);
  EXPECT_EQ(decision.wait_until_ns, kNow + 400);
}

TEST(AdaptiveBatchPolicy, HoldsItsInvariantsOnRandomQueues) {
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
        if (deadline_ns != kNever) {
          earliest_deadline_ns = std::min(earliest_deadline_ns, deadline_ns - (deadline_ns - oldest_ns) / 8);
        }
        group.push_back({.rows = draw(1, max_rows), .enqueue_ns = oldest_ns, .deadline_ns = deadline_ns});
      }
    }
    const BatchDecision decision =
        Decide(groups, {.max_rows = max_rows, .max_queue_delay_ns = delay_ns, .preferred_rows = preferred});
    if (decision.count == 0) {
      ASSERT_GT(std::min(earliest_ripe_ns, earliest_deadline_ns), kNow) << "a ripe group was made to wait";
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

/// A model of 100 for the call and 10 for each row.
class AdaptiveBatchPolicyByLatency : public testing::Test {
 protected:
  static constexpr LatencyTable::Entry kEntries[] = {
      {1, 100, 110, 110}, {2, 110, 120, 120}, {4, 130, 140, 140}, {8, 170, 180, 180}, {16, 250, 260, 260}};

  QueueSnapshot Snapshot(const std::vector<PendingRequest>& requests) {
    group_ = {.requests = requests};
    return {.groups = std::span(&group_, 1),
            .limits = {.max_rows = 16, .max_queue_delay_ns = 0},
            .latency = {.entries = kEntries},
            .now_ns = kNow};
  }

  static std::vector<PendingRequest> WithDeadlines(std::initializer_list<int64_t> left_ns) {
    std::vector<PendingRequest> requests;
    for (int64_t left : left_ns) requests.push_back({.rows = 1, .enqueue_ns = kNow, .deadline_ns = kNow + left});
    return requests;
  }

  PendingGroup group_;
  AdaptiveBatchPolicy policy_;
};

TEST_F(AdaptiveBatchPolicyByLatency, TakesAllThatItsEarliestDeadlineAllows) {
  const auto requests = WithDeadlines({140, 500, 500, 500, 500, 500});
  const BatchDecision decision = policy_.Decide(Snapshot(requests));
  EXPECT_EQ(decision.count, 4u);  // five would take 150
  EXPECT_EQ(decision.give_up_before_ns, 0);
}

TEST_F(AdaptiveBatchPolicyByLatency, GivesUpTheHurriedWhereTheyWouldMakeTheOthersLate) {
  // Alone, the first is answered after 110, and the ten others not before 310.
  const auto requests = WithDeadlines({115, 260, 260, 260, 260, 260, 260, 260, 260, 260, 260});
  const BatchDecision decision = policy_.Decide(Snapshot(requests));
  EXPECT_EQ(decision.count, 10u);
  EXPECT_GT(decision.give_up_before_ns, kNow + 115);
  EXPECT_LE(decision.give_up_before_ns, kNow + 260);
}

TEST_F(AdaptiveBatchPolicyByLatency, RunsTheHurriedFirstWhereTheOthersHaveTime) {
  const auto requests = WithDeadlines({115, 400, 400, 400, 400, 400, 400, 400, 400, 400, 400});
  const BatchDecision decision = policy_.Decide(Snapshot(requests));
  EXPECT_EQ(decision.count, 1u);
  EXPECT_EQ(decision.give_up_before_ns, 0);
}

TEST_F(AdaptiveBatchPolicyByLatency, CountsItsSlackAgainstDeadlines) {
  const auto requests = WithDeadlines({140, 500, 500, 500});
  EXPECT_EQ(AdaptiveBatchPolicy({.slack_ns = 10}).Decide(Snapshot(requests)).count, 3u);
}

TEST_F(AdaptiveBatchPolicyByLatency, WaitsOnlyWhileItPays) {
  const auto requests = Requests({1});
  QueueSnapshot snapshot = Snapshot(requests);
  snapshot.limits.max_queue_delay_ns = kAdaptiveDelay;
  EXPECT_EQ(policy_.Decide(snapshot).count, 1u) << "nothing is known of the next request";
  snapshot.arrivals = {.gap_ns = 200, .last_ns = kNow};
  EXPECT_EQ(policy_.Decide(snapshot).count, 1u) << "2 in 200 + 120 are fewer than 1 in 110";
  snapshot.arrivals.gap_ns = 50;
  EXPECT_EQ(policy_.Decide(snapshot).count, 0u) << "2 in 50 + 120 are more than 1 in 110";
  EXPECT_EQ(policy_.Decide(snapshot).wait_until_ns, kNow + 100) << "twice the gap";
  snapshot.now_ns = kNow + 100;
  EXPECT_EQ(policy_.Decide(snapshot).count, 1u) << "it has not come";
  snapshot = Snapshot(requests);
  snapshot.arrivals = {.gap_ns = 50, .last_ns = kNow};
  snapshot.latency = {};
  snapshot.limits.max_queue_delay_ns = kAdaptiveDelay;
  EXPECT_EQ(policy_.Decide(snapshot).count, 1u) << "nothing is known of the model";
}

TEST_F(AdaptiveBatchPolicyByLatency, WaitsNoLongerThanARunTakes) {
  auto requests = Requests({1, 1}, kNow - 110);
  QueueSnapshot snapshot = Snapshot(requests);
  snapshot.limits.max_queue_delay_ns = kAdaptiveDelay;
  snapshot.arrivals = {.gap_ns = 40, .last_ns = kNow};
  EXPECT_EQ(policy_.Decide(snapshot).wait_until_ns, kNow + 10);
}

TEST_F(AdaptiveBatchPolicyByLatency, NeverWaitsUntilADeadlineCouldBeMissed) {
  auto requests = WithDeadlines({150});
  QueueSnapshot snapshot = Snapshot(requests);
  snapshot.limits.max_queue_delay_ns = 1000;
  EXPECT_EQ(policy_.Decide(snapshot).wait_until_ns, kNow + 30);  // two rows take 120
  requests[0].start_by_ns = kNow + 20;
  EXPECT_EQ(policy_.Decide(snapshot).wait_until_ns, kNow + 18);
}

TEST_F(AdaptiveBatchPolicyByLatency, ExpectsSeveralRequestsInTheShortestWait) {
  const AdaptiveBatchPolicy policy({.shortest_wait_ns = 60});
  const auto requests = Requests({1});
  QueueSnapshot snapshot = Snapshot(requests);
  snapshot.limits.max_queue_delay_ns = kAdaptiveDelay;
  snapshot.arrivals = {.gap_ns = 10, .last_ns = kNow};
  EXPECT_EQ(policy.Decide(snapshot).wait_until_ns, kNow + 110) << "six gaps, twice, but not longer than a run";
}

TEST_F(AdaptiveBatchPolicyByLatency, TakesNobodyPastADeadlineThatItCouldHaveMet) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 20'000; ++round) {
    std::vector<PendingRequest> requests(random() % 30 + 1);
    for (PendingRequest& request : requests) {
      request = {.rows = static_cast<int64_t>(random() % 4 + 1), .enqueue_ns = kNow};
      // The queue has given up what cannot be met alone.
      if (random() % 3 != 0) request.deadline_ns = kNow + 140 + static_cast<int64_t>(random() % 600);
    }
    const BatchDecision decision = policy_.Decide(Snapshot(requests));
    ASSERT_GT(decision.count, 0u);
    int64_t rows = 0, earliest_ns = kNever;
    size_t taken = 0;
    for (size_t i = 0; taken < decision.count; ++i) {
      ASSERT_LT(i, requests.size());
      if (requests[i].deadline_ns < decision.give_up_before_ns) continue;
      rows += requests[i].rows;
      earliest_ns = std::min(earliest_ns, requests[i].deadline_ns);
      ++taken;
    }
    ASSERT_LE(rows, 16);
    ASSERT_LE(kNow + LatencyTable{.entries = kEntries}.At(rows).tail_ns, earliest_ns);
  }
}

}  // namespace
}  // namespace gristmill
