// SPDX-License-Identifier: Apache-2.0
#include "engine/cached_servable.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <thread>

#include "batching/adaptive_batch_policy.h"
#include "core/fake_clock.h"
#include "engine/fakes.h"

namespace gristmill {
namespace {

using testing::ElementsAre;

class CachedServableTest : public testing::Test {
 protected:
  FakeClock clock_;
  AdaptiveBatchPolicy policy_;
  FakeSink sink_;
  ResponseCache cache_{{.max_bytes = 1 << 20}, &clock_};
  std::shared_ptr<FakeModel> model_ = std::make_shared<FakeModel>(&clock_);
  std::shared_ptr<Servable> servable_;
  std::deque<std::vector<float>> values_;  // keeps the requests' bytes
  InferRequest* last_ = nullptr;

  void SetUp() override { servable_ = Load(); }

  std::shared_ptr<Servable> Load() {
    ModelConfig config = FakeModel::Config();
    config.cache.emplace();
    std::shared_ptr<Servable> servable;
    EXPECT_TRUE(
        CachedServable::Create({.config = config, .clock = &clock_, .policy = &policy_}, model_, &cache_, &servable)
            .ok());
    return servable;
  }

  void TearDown() override {
    model_->Open();
    servable_.reset();
  }

  Servable::Admitted Send(uint64_t ticket, float x, int64_t deadline_ns = kNever) {
    values_.push_back({x});
    auto request = MakeRequest(ticket, &sink_, values_.back());
    request->arrival_ns = clock_.NowNs();
    request->deadline_ns = deadline_ns;
    last_ = request.get();
    Status status;
    const Servable::Admitted admitted = servable_->Enqueue(&request, &status);
    servable_->Wake(MayRun::kNo);
    return admitted;
  }

  uint64_t hits() { return servable_->statistics().cache_hit.count; }
};

TEST_F(CachedServableTest, AnswersFromTheCacheAtOnce) {
  model_->Open();
  Send(0, 1);
  sink_.Await(1);
  while (servable_->pending() > 0) std::this_thread::yield();
  Send(1, 1);
  EXPECT_THAT(sink_.order(), ElementsAre(0, 1));
  EXPECT_THAT(sink_.Await(2).at(1)[0].y, ElementsAre(2));
  EXPECT_THAT(model_->batch_rows(), ElementsAre(1));
  const StatisticsSnapshot statistics = servable_->statistics();
  EXPECT_EQ(statistics.cache_hit.count, 1u);
  EXPECT_EQ(statistics.cache_miss.count, 1u);
  EXPECT_EQ(statistics.success.count, 2u);
  EXPECT_EQ(statistics.inference_count, 1u);
}

TEST_F(CachedServableTest, RunsEqualRequestsOnce) {
  Send(0, 1);
  model_->AwaitRuns(1);
  Send(1, 1);
  Send(2, 1);
  Send(3, 2);
  EXPECT_EQ(servable_->pending(), 4);
  model_->Open();
  const auto answers = sink_.Await(4);
  for (uint64_t ticket = 0; ticket < 3; ++ticket) EXPECT_THAT(answers.at(ticket)[0].y, ElementsAre(2));
  EXPECT_THAT(answers.at(3)[0].y, ElementsAre(3));
  EXPECT_THAT(model_->batch_rows(), ElementsAre(1, 1));
  EXPECT_EQ(hits(), 2u);
  EXPECT_EQ(servable_->pending(), 0);
}

TEST_F(CachedServableTest, AFailureIsItsRequestsOwn) {
  Send(0, -1);
  model_->AwaitRuns(1);
  Send(1, -1);
  model_->Open();
  const auto answers = sink_.Await(2);
  EXPECT_EQ(answers.at(0)[0].status.code(), StatusCode::kInternal);
  EXPECT_EQ(answers.at(1)[0].status.code(), StatusCode::kInternal);
  EXPECT_THAT(model_->batch_rows(), ElementsAre(1, 1));
  EXPECT_EQ(cache_.usage().entries, 0u);
  EXPECT_EQ(hits(), 0u);
}

TEST_F(CachedServableTest, TheNextIsRunIfTheFirstIsTakenBack) {
  Send(0, 9);
  model_->AwaitRuns(1);
  Send(1, 1);
  const InferRequest* first = last_;
  Send(2, 1);
  const InferRequest* second = last_;
  Send(3, 1);
  Status status;
  std::unique_ptr<InferRequest> removed = servable_->Remove(first, &status);
  ASSERT_NE(removed, nullptr);
  EXPECT_EQ(removed->sink, &sink_);
  EXPECT_EQ(status.code(), StatusCode::kCancelled);
  EXPECT_EQ(servable_->Remove(first, &status), nullptr);
  EXPECT_EQ(servable_->Remove(second, &status)->ticket, 2u);
  model_->Open();
  EXPECT_THAT(sink_.Await(2).at(3)[0].y, ElementsAre(2));
  EXPECT_EQ(servable_->pending(), 0);
}

TEST_F(CachedServableTest, OneThatOnlyWaitsMayBeTakenBack) {
  Send(0, 1);
  model_->AwaitRuns(1);
  Send(1, 1, clock_.NowNs() + 10);
  clock_.Advance(10);
  Status status;
  EXPECT_NE(servable_->Remove(last_, &status), nullptr);
  EXPECT_EQ(status.code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(servable_->pending(), 1);
  model_->Open();
  sink_.Await(1);
}

TEST_F(CachedServableTest, AVersionThatIsLoadedAgainStartsWithNothing) {
  model_->Open();
  Send(0, 1);
  sink_.Await(1);
  servable_ = Load();
  Send(1, 1);
  sink_.Await(2);
  EXPECT_EQ(hits(), 0u);
}

TEST_F(CachedServableTest, ADrainAnswersThoseThatWaitForAFailure) {
  Send(0, -1);
  model_->AwaitRuns(1);
  Send(1, -1);
  std::thread opener([&] { model_->Open(); });
  servable_->Drain();
  opener.join();
  EXPECT_EQ(sink_.Await(2).size(), 2u);
  EXPECT_EQ(Send(2, 5), Servable::Admitted::kClosed);
}

TEST_F(CachedServableTest, AnswersEachOfManyCallersOnce) {
  model_->Open();
  const std::vector<std::vector<float>> xs = {{0}, {1}, {2}, {-1}};
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t i = 0; i < 400; ++i) {
        auto request = MakeRequest(t * 400 + i, &sink_, xs[(t + i) % xs.size()]);
        Status status;
        ASSERT_EQ(servable_->Enqueue(&request, &status), Servable::Admitted::kYes);
        servable_->Wake(i % 2 == 0 ? MayRun::kYes : MayRun::kNo);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& [ticket, answers] : sink_.Await(1600)) {
    ASSERT_EQ(answers.size(), 1u);
    const float x = xs[(ticket / 400 + ticket % 400) % xs.size()][0];
    if (x < 0) {
      ASSERT_EQ(answers[0].status.code(), StatusCode::kInternal);
    } else {
      ASSERT_THAT(answers[0].y, ElementsAre(x + 1));
    }
  }
  EXPECT_EQ(servable_->pending(), 0);
}

}  // namespace
}  // namespace gristmill
