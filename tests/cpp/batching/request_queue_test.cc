// SPDX-License-Identifier: Apache-2.0
#include "batching/request_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <random>

#include "batching/adaptive_batch_policy.h"

namespace gristmill {
namespace {

using testing::ElementsAre;
using testing::Optional;

struct Asked {
  uint64_t priority = 0;
  int64_t timeout_us = 0;
};

class RequestQueueTest : public testing::Test {
 protected:
  RequestQueueTest() {
    Rebuild({.max_rows = 4, .max_queue_delay_ns = 100, .preferred_rows = {}, .compatible = Compatible});
  }

  void Rebuild(RequestQueueOptions options) { queue_ = std::make_unique<RequestQueue>(std::move(options)); }

  // Two requests are compatible when their versions are the same text: it stands for the shape here.
  static bool Compatible(const InferRequest& a, const InferRequest& b) { return a.model_version == b.model_version; }

  std::unique_ptr<RequestQueue> queue_;
  AdaptiveBatchPolicy policy_;
  int64_t now_ns_ = 1000;
  std::vector<std::unique_ptr<InferRequest>> batch_;
  LatencyProfile profile_{4};
  std::vector<GivenUpRequest> given_up_;

  InferRequest* Push(uint64_t ticket, uint64_t key = 0, std::string_view shape = "", int64_t deadline_ns = kNever,
                     Asked asked = {}) {
    auto request = std::make_unique<InferRequest>();
    InferRequest* raw = request.get();
    request->ticket = ticket;
    request->model_version = shape;
    request->arrival_ns = request->enqueue_ns = now_ns_;
    request->priority = asked.priority;
    request->timeout_us = asked.timeout_us;
    request->deadline_ns = deadline_ns;
    queue_->Push(std::move(request), key);
    return raw;
  }

  /// The ticket of what was removed.
  std::optional<uint64_t> Remove(const InferRequest* request) {
    const std::unique_ptr<InferRequest> removed = queue_->Remove(request);
    return removed == nullptr ? std::nullopt : std::optional(removed->ticket);
  }

  std::vector<uint64_t> Next() {
    batch_.clear();
    const BatchDecision decision = queue_->Decide(policy_, profile_, now_ns_, &given_up_);
    if (decision.count > 0) queue_->Take(decision, &batch_, &given_up_);
    return Tickets(batch_);
  }

  std::vector<uint64_t> GivenUp() const {
    std::vector<uint64_t> tickets;
    for (const GivenUpRequest& given_up : given_up_) tickets.push_back(given_up.request->ticket);
    return tickets;
  }

  static std::vector<uint64_t> Tickets(const std::vector<std::unique_ptr<InferRequest>>& requests) {
    std::vector<uint64_t> tickets;
    for (const auto& request : requests) tickets.push_back(request->ticket);
    return tickets;
  }
};

TEST_F(RequestQueueTest, KeepsTheOrderOfArrival) {
  for (uint64_t i = 0; i < 6; ++i) Push(i);
  EXPECT_THAT(Next(), ElementsAre(0, 1, 2, 3));
  EXPECT_EQ(queue_->size(), 2u);
  EXPECT_THAT(Next(), ElementsAre());
  now_ns_ += 100;
  EXPECT_THAT(Next(), ElementsAre(4, 5));
  EXPECT_EQ(queue_->size(), 0u);
}

TEST_F(RequestQueueTest, NeverMixesGroups) {
  Push(0, 1, "a");
  Push(1, 2, "b");
  Push(2, 1, "a");
  now_ns_ += 100;
  EXPECT_THAT(Next(), ElementsAre(0, 2));
  EXPECT_THAT(Next(), ElementsAre(1));
}

TEST_F(RequestQueueTest, NeverMixesGroupsWhoseKeysCollide) {
  Push(0, 1, "a");
  Push(1, 1, "b");
  Push(2, 1, "a");
  Push(3, 1, "b");
  now_ns_ += 100;
  EXPECT_THAT(Next(), ElementsAre(0, 2));
  EXPECT_THAT(Next(), ElementsAre(1, 3));
}

TEST_F(RequestQueueTest, ServesTheGroupWithTheOldestRequestFirst) {
  for (uint64_t i = 0; i < 5; ++i) Push(i, 1, "a");
  Push(5, 2, "b");
  Push(6, 1, "a");
  EXPECT_THAT(Next(), ElementsAre(0, 1, 2, 3));
  now_ns_ += 100;
  EXPECT_THAT(Next(), ElementsAre(4, 6));  // request 4 came before 5
  EXPECT_THAT(Next(), ElementsAre(5));
}

TEST_F(RequestQueueTest, DropsTheExpired) {
  Push(0);
  Push(1, 0, "", 1100);
  Push(2, 0, "", 1050);
  Push(3);
  now_ns_ = 1100;
  EXPECT_THAT(Next(), ElementsAre(0, 3));
  EXPECT_THAT(GivenUp(), ElementsAre(1, 2));
  EXPECT_EQ(queue_->size(), 0u);
}

TEST_F(RequestQueueTest, DropsAWholeGroup) {
  Push(0, 1, "a", 1050);
  Push(1, 2, "b");
  now_ns_ += 100;
  EXPECT_THAT(Next(), ElementsAre(1));
  EXPECT_THAT(GivenUp(), ElementsAre(0));
  EXPECT_THAT(Next(), ElementsAre());
}

TEST_F(RequestQueueTest, RemovesFromHeadMiddleAndTail) {
  std::vector<InferRequest*> pushed;
  for (uint64_t i = 0; i < 8; ++i) pushed.push_back(Push(i));
  EXPECT_THAT(Remove(pushed[0]), Optional(0));
  EXPECT_THAT(Remove(pushed[2]), Optional(2));
  EXPECT_THAT(Remove(pushed[5]), Optional(5));
  EXPECT_THAT(Remove(pushed[7]), Optional(7));
  EXPECT_EQ(queue_->size(), 4u);
  EXPECT_THAT(Next(), ElementsAre(1, 3, 4, 6));
  EXPECT_EQ(queue_->size(), 0u);
}

TEST_F(RequestQueueTest, RemovesOnlyWhatWaitsInIt) {
  InferRequest* first = Push(0);
  Push(1);
  now_ns_ += 100;
  EXPECT_THAT(Next(), ElementsAre(0, 1));
  EXPECT_EQ(Remove(first), std::nullopt);  // its group has gone
  Push(2);
  EXPECT_EQ(Remove(first), std::nullopt);  // its group is another
  RequestQueue other({.compatible = [](const InferRequest&, const InferRequest&) { return true; }});
  auto foreign = std::make_unique<InferRequest>();
  InferRequest* raw = foreign.get();
  for (int i = 0; i < 2; ++i) other.Push(std::make_unique<InferRequest>(), 0);
  other.Push(std::move(foreign), 0);
  EXPECT_EQ(Remove(raw), std::nullopt);  // the place of request 2 here
  EXPECT_EQ(queue_->size(), 1u);
}

TEST_F(RequestQueueTest, ServesTheGroupThatIsOldestAfterARemoval) {
  InferRequest* oldest = Push(0, 1, "a");
  Push(1, 2, "b");
  Push(2, 1, "a");
  EXPECT_THAT(Remove(oldest), Optional(0));
  now_ns_ += 100;
  EXPECT_THAT(Next(), ElementsAre(1));
  EXPECT_THAT(Next(), ElementsAre(2));
}

TEST_F(RequestQueueTest, RemovesTheLastOfAGroup) {
  InferRequest* only = Push(0, 1, "a");
  Push(1, 1, "b");  // whose key collides
  EXPECT_THAT(Remove(only), Optional(0));
  EXPECT_THAT(Remove(Push(2, 1, "a")), Optional(2));
  now_ns_ += 100;
  EXPECT_THAT(Next(), ElementsAre(1));
  EXPECT_THAT(Next(), ElementsAre());
}

TEST_F(RequestQueueTest, StaysInOrderWhateverIsRemoved) {
  std::mt19937 random(1);
  std::vector<std::pair<uint64_t, InferRequest*>> waiting;  // of group "a", which batches are taken from
  std::vector<InferRequest*> others;
  uint64_t next = 0;
  for (int round = 0; round < 2000; ++round) {
    switch (random() % 4) {
      case 0:
        for (int i = 0; i < 7; ++i, ++next) waiting.emplace_back(next, Push(next, 1, "a"));
        others.push_back(Push(0, 2, "b"));
        break;
      case 1: {
        if (waiting.size() < 4) break;
        std::vector<uint64_t> expected;
        for (int i = 0; i < 4; ++i) expected.push_back(waiting[static_cast<size_t>(i)].first);
        waiting.erase(waiting.begin(), waiting.begin() + 4);
        for (InferRequest* other : others) EXPECT_THAT(Remove(other), Optional(0));
        others.clear();
        EXPECT_EQ(Next(), expected);
        break;
      }
      default: {
        if (waiting.empty()) break;
        const auto at = waiting.begin() + static_cast<ptrdiff_t>(random() % waiting.size());
        EXPECT_THAT(Remove(at->second), Optional(at->first));
        waiting.erase(at);
      }
    }
    ASSERT_EQ(queue_->size(), waiting.size() + others.size());
  }
}

TEST_F(RequestQueueTest, WaitsForNobodyOnceNobodyComes) {
  for (uint64_t i = 0; i < 6; ++i) Push(i);
  EXPECT_THAT(Next(), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(Next(), ElementsAre());
  queue_->StopWaiting();
  EXPECT_THAT(Next(), ElementsAre(4, 5));
}

TEST_F(RequestQueueTest, ReusesEmptiedGroups) {
  for (int round = 0; round < 100; ++round) {
    for (uint64_t i = 0; i < 8; ++i) Push(i, i % 2, i % 2 == 0 ? "a" : "b");
    EXPECT_THAT(Next(), ElementsAre(0, 2, 4, 6));
    EXPECT_THAT(Next(), ElementsAre(1, 3, 5, 7));
    EXPECT_EQ(queue_->size(), 0u);
  }
}

/// Two levels of priority, the second the default.
class PriorityQueueTest : public RequestQueueTest {
 protected:
  void Use(QueueLevel first, QueueLevel second, bool preserve_order = false) {
    Rebuild({.max_rows = 4,
             .levels = {first, second},
             .default_level = 1,
             .preserve_order = preserve_order,
             .compatible = Compatible});
  }
};

TEST_F(PriorityQueueTest, ServesTheUrgentFirst) {
  Use({}, {});
  Push(0);
  Push(1, 0, "", kNever, {.priority = 2});
  Push(2, 0, "", kNever, {.priority = 1});
  Push(3, 0, "", kNever, {.priority = 9});  // there is no such level
  Push(4, 0, "", kNever, {.priority = 1});
  Push(5, 2, "b");
  EXPECT_EQ(queue_->RowsAhead(1), 2);
  EXPECT_EQ(queue_->RowsAhead(2), 6);
  EXPECT_THAT(Next(), ElementsAre(2, 4, 0, 1));
  Push(6, 2, "b", kNever, {.priority = 1});
  EXPECT_THAT(Next(), ElementsAre(6, 5));
  EXPECT_THAT(Next(), ElementsAre(3));
}

TEST_F(PriorityQueueTest, RemovesFromWhereverOneStands) {
  Use({}, {});
  InferRequest* low = Push(0);
  InferRequest* high = Push(1, 0, "", kNever, {.priority = 1});
  Push(2);
  EXPECT_THAT(Remove(high), Optional(1));
  EXPECT_THAT(Remove(low), Optional(0));
  EXPECT_EQ(queue_->RowsAhead(2), 1);
  EXPECT_THAT(Next(), ElementsAre(2));
}

TEST_F(PriorityQueueTest, LimitsEachLevel) {
  Use({.max_queue_size = 1}, {.max_queue_size = 2});
  Push(0, 0, "", kNever, {.priority = 1});
  EXPECT_FALSE(queue_->HasRoom(1));
  EXPECT_TRUE(queue_->HasRoom(2));
  Push(1);
  Push(2);
  EXPECT_FALSE(queue_->HasRoom(0));
  EXPECT_THAT(Next(), ElementsAre(0, 1, 2));
  EXPECT_TRUE(queue_->HasRoom(1));
  EXPECT_TRUE(queue_->HasRoom(0));
}

TEST_F(PriorityQueueTest, GivesUpWhatHasTimedOut) {
  Use({}, {.default_timeout_us = 1, .allow_timeout_override = false});
  Push(0);
  Push(1, 0, "", kNever, {.timeout_us = 100});
  Push(2, 0, "", kNever, {.priority = 1, .timeout_us = 3});
  now_ns_ += 1000;
  EXPECT_THAT(Next(), ElementsAre(2));
  EXPECT_THAT(GivenUp(), ElementsAre(0, 1));
  EXPECT_EQ(given_up_[0].reason, GivenUpReason::kTimeout);
}

TEST_F(PriorityQueueTest, LetsARequestShortenItsTimeout) {
  Use({}, {.default_timeout_us = 2});
  Push(0, 0, "", kNever, {.timeout_us = 1});
  Push(1, 0, "", kNever, {.timeout_us = 9});
  now_ns_ += 1000;
  EXPECT_THAT(Next(), ElementsAre(1));
  Push(2, 0, "", kNever, {.timeout_us = 9});
  now_ns_ += 2000;
  EXPECT_THAT(Next(), ElementsAre());
  EXPECT_THAT(GivenUp(), ElementsAre(0, 2));
}

TEST_F(PriorityQueueTest, RunsWhatIsDelayedAfterTheOthersOfItsLevel) {
  Use({.default_timeout_us = 1, .delays_timed_out = true}, {});
  for (uint64_t i = 0; i < 2; ++i) Push(i, 0, "", kNever, {.priority = 1});
  Push(2);
  now_ns_ += 1000;
  InferRequest* late = Push(3, 0, "", kNever, {.priority = 1});
  EXPECT_THAT(Next(), ElementsAre(3, 0, 1, 2));
  EXPECT_THAT(GivenUp(), ElementsAre());
  EXPECT_EQ(Remove(late), std::nullopt);
  InferRequest* delayed = Push(4, 0, "", kNever, {.priority = 1});
  for (uint64_t i = 5; i < 10; ++i) Push(i, 0, "", kNever, {.priority = 2});
  now_ns_ += 1000;
  for (uint64_t i = 10; i < 14; ++i) Push(i, 0, "", kNever, {.priority = 1});
  EXPECT_THAT(Next(), ElementsAre(10, 11, 12, 13));
  EXPECT_THAT(Remove(delayed), Optional(4));
}

TEST_F(PriorityQueueTest, KeepsTheOrderOfArrivalIfAsked) {
  Use({}, {}, true);
  Push(0, 1, "a");
  Push(1, 1, "a");
  Push(2, 2, "b");
  Push(3, 1, "a");
  Push(4, 1, "a");
  EXPECT_THAT(Next(), ElementsAre(0, 1));
  EXPECT_THAT(Next(), ElementsAre(2));
  Push(5, 1, "a");
  EXPECT_THAT(Next(), ElementsAre(3, 4, 5));
  EXPECT_EQ(queue_->size(), 0u);
}

TEST_F(RequestQueueTest, GivesUpWhatCouldNotBeAnsweredInTime) {
  profile_.Record(1, 50, now_ns_);
  Push(0, 0, "", now_ns_ + 49);
  Push(1, 0, "", now_ns_ + 51);
  Push(2);
  EXPECT_THAT(Next(), ElementsAre(1));
  EXPECT_THAT(GivenUp(), ElementsAre(0));
  EXPECT_EQ(given_up_[0].reason, GivenUpReason::kHopeless);
  now_ns_ += 1'000'000'000;  // what was measured is stale
  Push(3, 0, "", now_ns_ + 1);
  EXPECT_THAT(Next(), ElementsAre(2));
  EXPECT_THAT(Next(), ElementsAre(3));
}

}  // namespace
}  // namespace gristmill
