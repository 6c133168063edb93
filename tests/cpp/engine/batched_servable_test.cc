// SPDX-License-Identifier: Apache-2.0
#include "engine/batched_servable.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "batching/adaptive_batch_policy.h"
#include "core/fake_clock.h"
#include "engine/fakes.h"

namespace gristmill {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class BatchedServableTest : public testing::Test {
 protected:
  FakeClock clock_;
  AdaptiveBatchPolicy policy_;
  FakeSink sink_;
  std::shared_ptr<FakeModel> model_ = std::make_shared<FakeModel>(&clock_);
  std::shared_ptr<Servable> servable_;
  std::vector<std::vector<float>> values_;  // keeps the requests' bytes

  void Start(ModelConfig config = FakeModel::Config()) {
    ASSERT_TRUE(
        BatchedServable::Create({.config = config, .clock = &clock_, .policy = &policy_, .short_run_ns = short_run_ns_},
                                model_, &servable_)
            .ok());
    values_.reserve(1000);
  }

  void TearDown() override {
    model_->Open();
    servable_.reset();  // before the bytes of its requests
  }

  Servable::Admitted Enqueue(uint64_t ticket, std::vector<float> x, int64_t deadline_ns = kNever,
                             MayRun may_run = MayRun::kNo) {
    values_.push_back(std::move(x));
    auto request = MakeRequest(ticket, &sink_, values_.back());
    request->arrival_ns = clock_.NowNs();
    request->deadline_ns = deadline_ns;
    last_ = request.get();
    const Servable::Admitted admitted = servable_->Enqueue(&request, &status_);
    EXPECT_EQ(request == nullptr, admitted == Servable::Admitted::kYes);
    servable_->Wake(may_run);
    return admitted;
  }

  int64_t short_run_ns_ = 0;
  InferRequest* last_ = nullptr;
  Status status_;
};

TEST_F(BatchedServableTest, BatchesWhatArrivesWhileTheExecutorIsBusy) {
  Start();
  Enqueue(0, {0});
  model_->AwaitRuns(1);
  Enqueue(1, {10, 11, 12});
  Enqueue(2, {20});
  Enqueue(3, {30, 31, 32, 33, 34});
  model_->Open();
  const auto answers = sink_.Await(4);
  EXPECT_THAT(answers.at(0)[0].y, ElementsAre(1));
  EXPECT_THAT(answers.at(1)[0].y, ElementsAre(11, 12, 13));
  EXPECT_THAT(answers.at(2)[0].y, ElementsAre(21));
  EXPECT_THAT(answers.at(3)[0].y, ElementsAre(31, 32, 33, 34, 35));
  EXPECT_EQ(answers.at(3)[0].version, "3");
  EXPECT_THAT(model_->batch_rows(), ElementsAre(1, 4, 5));
  EXPECT_EQ(sink_.flushes(), 3);
  EXPECT_EQ(servable_->pending(), 0);
}

TEST_F(BatchedServableTest, RunsEachRequestAloneWithoutDynamicBatching) {
  ModelConfig config = FakeModel::Config();
  config.batching.dynamic = false;
  Start(config);
  for (uint64_t i = 0; i < 4; ++i) Enqueue(i, {0, 1});
  model_->Open();
  sink_.Await(4);
  EXPECT_THAT(model_->batch_rows(), ElementsAre(2, 2, 2, 2));
}

TEST_F(BatchedServableTest, WaitsForCompanyNoLongerThanTheDelay) {
  ModelConfig config = FakeModel::Config();
  config.batching.max_queue_delay_us = 100;
  Start(config);
  model_->Open();
  clock_.AwaitWaiters(1);
  Enqueue(0, {0});
  Enqueue(1, {1});
  clock_.AwaitWaiters(1);
  EXPECT_EQ(servable_->pending(), 2);
  // The executor may be between two looks at the queue, so time moves on until it has looked again.
  while (servable_->pending() > 0) clock_.Advance(100'000);
  sink_.Await(2);
  EXPECT_THAT(model_->batch_rows(), ElementsAre(2));
}

TEST_F(BatchedServableTest, FailsOnlyTheRequestToBlame) {
  Start();
  Enqueue(0, {0});
  model_->AwaitRuns(1);
  for (uint64_t i = 1; i <= 8; ++i) Enqueue(i, {i == 6 ? -1.0f : static_cast<float>(i)});
  model_->Open();
  const auto answers = sink_.Await(9);
  for (uint64_t i = 0; i <= 8; ++i) {
    ASSERT_EQ(answers.at(i).size(), 1u);
    const FakeSink::Answer& answer = answers.at(i)[0];
    if (i == 6) {
      EXPECT_EQ(answer.status.code(), StatusCode::kInternal);
      EXPECT_THAT(answer.status.message(), HasSubstr("must not be negative"));
    } else {
      ASSERT_TRUE(answer.status.ok());
      EXPECT_THAT(answer.y, ElementsAre(static_cast<float>(i) + 1));
    }
  }
  const StatisticsSnapshot statistics = servable_->statistics();
  EXPECT_EQ(statistics.success.count, 8u);
  EXPECT_EQ(statistics.fail.count, 1u);
  EXPECT_EQ(statistics.inference_count, 8u);
}

TEST_F(BatchedServableTest, NeverRunsTheExpired) {
  Start();
  Enqueue(0, {0});
  model_->AwaitRuns(1);
  Enqueue(1, {1}, clock_.NowNs() + 50);
  Enqueue(2, {2}, clock_.NowNs() + 60);
  Enqueue(3, {3});
  clock_.Advance(100);
  model_->Open();
  const auto answers = sink_.Await(4);
  EXPECT_EQ(answers.at(1)[0].status.code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(answers.at(2)[0].status.code(), StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(answers.at(3)[0].status.ok());
  EXPECT_THAT(model_->batch_rows(), ElementsAre(1, 1));
}

TEST_F(BatchedServableTest, QueuesNoRequestThatIsNotGoingToRun) {
  Start();
  EXPECT_EQ(Enqueue(0, {0}, clock_.NowNs()), Servable::Admitted::kRefused);
  EXPECT_EQ(status_.code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(servable_->statistics().fail.count, 1u);
}

TEST_F(BatchedServableTest, RemovesARequestThatWaits) {
  ModelConfig config = FakeModel::Config();
  config.batching.levels[0].max_queue_size = 2;
  Start(config);
  Enqueue(0, {0});
  const InferRequest* const running = last_;
  model_->AwaitRuns(1);
  Enqueue(1, {1}, clock_.NowNs() + 50);
  const InferRequest* const late = last_;
  Enqueue(2, {2});
  EXPECT_EQ(Enqueue(3, {3}), Servable::Admitted::kRefused);
  clock_.Advance(100);
  Status status;
  EXPECT_EQ(servable_->Remove(running, &status), nullptr);
  EXPECT_TRUE(status.ok());
  const std::unique_ptr<InferRequest> removed = servable_->Remove(late, &status);
  ASSERT_EQ(removed.get(), late);
  EXPECT_EQ(status.code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(servable_->pending(), 2);
  EXPECT_EQ(servable_->statistics().fail.count, 2u);
  EXPECT_EQ(servable_->statistics().fail.ns, 100u);
  EXPECT_EQ(Enqueue(4, {4}), Servable::Admitted::kYes);
  EXPECT_EQ(servable_->Remove(last_, &status)->ticket, 4u);
  EXPECT_EQ(status.code(), StatusCode::kCancelled);
  model_->Open();
  sink_.Await(2);
  EXPECT_THAT(model_->batch_rows(), ElementsAre(1, 1));
}

TEST_F(BatchedServableTest, RunsAtOnceWhatARemovalMakesAPreferredBatch) {
  ModelConfig config = FakeModel::Config();
  config.batching.max_queue_delay_us = 100;
  config.batching.preferred_rows = {4};
  Start(config);
  model_->Open();
  Enqueue(0, {0});
  Enqueue(1, {1, 2});
  const InferRequest* const odd = last_;
  Enqueue(2, {3, 4, 5});
  Status status;
  EXPECT_NE(servable_->Remove(odd, &status), nullptr);
  sink_.Await(2);  // though the clock stands still
  EXPECT_THAT(model_->batch_rows(), ElementsAre(4));
}

TEST_F(BatchedServableTest, DrainsThoughTheLastToWaitIsRemoved) {
  Start();
  Enqueue(0, {0});
  model_->AwaitRuns(1);
  Enqueue(1, {1});
  std::thread drain([this] { servable_->Drain(); });
  Status status;
  EXPECT_NE(servable_->Remove(last_, &status), nullptr);
  model_->Open();
  drain.join();
  EXPECT_EQ(servable_->pending(), 0);
}

TEST_F(BatchedServableTest, RefusesWhatDoesNotFitItsQueue) {
  ModelConfig config = FakeModel::Config();
  config.batching.levels[0].max_queue_size = 2;
  Start(config);
  Enqueue(0, {0});
  model_->AwaitRuns(1);
  EXPECT_EQ(Enqueue(1, {1}), Servable::Admitted::kYes);
  EXPECT_EQ(Enqueue(2, {2}), Servable::Admitted::kYes);
  EXPECT_EQ(Enqueue(3, {3}), Servable::Admitted::kRefused);
  EXPECT_EQ(status_.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(status_.message(), HasSubstr("holds 2 requests already"));
  EXPECT_EQ(servable_->statistics().fail.count, 1u);
  EXPECT_EQ(servable_->pending(), 3);
}

TEST_F(BatchedServableTest, DrainAnswersEverythingItTook) {
  Start();
  Enqueue(0, {0});
  model_->AwaitRuns(1);
  for (uint64_t i = 1; i < 40; ++i) Enqueue(i, {1});
  std::thread drain([this] { servable_->Drain(); });
  // Drain has taken effect once requests are turned away; those are free to go to another version.
  uint64_t next = 40;
  while (Enqueue(next, {1}) == Servable::Admitted::kYes) ++next;
  model_->Open();
  drain.join();
  EXPECT_EQ(servable_->pending(), 0);
  const auto answers = sink_.Await(next);
  EXPECT_EQ(answers.size(), next);
  for (const auto& [ticket, list] : answers) {
    ASSERT_EQ(list.size(), 1u) << ticket;
    EXPECT_TRUE(list[0].status.ok());
  }
  servable_->Drain();  // a second time does nothing
}

TEST_F(BatchedServableTest, DrainWaitsForNoCompany) {
  ModelConfig config = FakeModel::Config();
  config.batching.max_queue_delay_us = 100;
  Start(config);
  model_->Open();
  Enqueue(0, {0});
  Enqueue(1, {1});
  servable_->Drain();  // though the clock stands still
  sink_.Await(2);
  EXPECT_THAT(model_->batch_rows(), ElementsAre(2));
}

TEST_F(BatchedServableTest, CountsTimesByTheClock) {
  Start();
  Enqueue(0, {0, 1});
  model_->AwaitRuns(1);
  Enqueue(1, {1});
  clock_.Advance(500);
  model_->Open();
  sink_.Await(2);
  servable_->Drain();
  const StatisticsSnapshot statistics = servable_->statistics();
  EXPECT_EQ(statistics.success.count, 2u);
  EXPECT_EQ(statistics.success.ns, 1000u);  // both were there for the 500
  EXPECT_EQ(statistics.inference_count, 3u);
  EXPECT_EQ(statistics.execution_count, 2u);
  EXPECT_EQ(statistics.by_batch_size.at(2).compute_infer.count, 1u);
  EXPECT_EQ(statistics.by_batch_size.at(1).compute_infer.count, 1u);
}

TEST_F(BatchedServableTest, SharesTheQueueAmongItsExecutors) {
  ModelConfig config = FakeModel::Config();
  config.instance_count = 2;
  config.max_batch_size = 1;
  Start(config);
  Enqueue(0, {0});
  Enqueue(1, {1});
  model_->AwaitRuns(2);  // both run at once: neither may finish before Open
  model_->Open();
  sink_.Await(2);
}

TEST_F(BatchedServableTest, AnswersEveryRequestOnceUnderConcurrency) {
  ModelConfig config = FakeModel::Config();
  config.instance_count = 2;
  Start(config);
  model_->Open();
  constexpr uint64_t kPerThread = 500;
  const std::vector<float> x = {7};
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t i = 0; i < kPerThread; ++i) {
        auto request = MakeRequest(t * kPerThread + i, &sink_, x);
        request->arrival_ns = clock_.NowNs();
        Status status;
        ASSERT_EQ(servable_->Enqueue(&request, &status), Servable::Admitted::kYes);
        servable_->Wake(MayRun::kNo);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& [ticket, list] : sink_.Await(4 * kPerThread)) {
    ASSERT_EQ(list.size(), 1u) << ticket;
    ASSERT_THAT(list[0].y, ElementsAre(8));
  }
}

TEST_F(BatchedServableTest, RunsWhatIsShortOnTheThreadThatHasBroughtIt) {
  short_run_ns_ = 1;  // the clock stands still, so all runs are short
  Start();
  model_->Open();
  // What a run takes is not known at first, and the executor's own thread may not have given it back yet.
  for (uint64_t ticket = 0; model_->thread() != std::this_thread::get_id(); ++ticket) {
    Enqueue(ticket, {1}, kNever, MayRun::kYes);
    sink_.Await(ticket + 1);
  }
}

TEST_F(BatchedServableTest, LeavesARunThatIsNotShortToAnExecutorsThread) {
  short_run_ns_ = 1;
  Start();
  for (uint64_t ticket = 0; ticket < 20; ++ticket) {
    model_->Close();
    Enqueue(ticket, {1}, kNever, MayRun::kYes);
    model_->AwaitRuns(ticket + 1);
    EXPECT_NE(model_->thread(), std::this_thread::get_id());
    clock_.Advance(2);
    model_->Open();
    sink_.Await(ticket + 1);
  }
}

TEST_F(BatchedServableTest, AnswersAllThatSeveralThreadsBringAndRunWhileItIsDrained) {
  short_run_ns_ = 1;
  ModelConfig config = FakeModel::Config();
  config.instance_count = 2;
  Start(config);
  model_->Open();
  const std::vector<float> x = {7};
  std::atomic<size_t> taken{0};
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t i = 0;; ++i) {
        auto request = MakeRequest(t << 32 | i, &sink_, x);
        Status status;
        if (servable_->Enqueue(&request, &status) == Servable::Admitted::kClosed) return;
        taken.fetch_add(1);
        servable_->Wake(MayRun::kYes);
      }
    });
  }
  while (taken.load() < 500) std::this_thread::yield();
  servable_->Drain();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(servable_->pending(), 0);
  for (const auto& [ticket, list] : sink_.Await(taken.load())) ASSERT_EQ(list.size(), 1u) << ticket;
}

constexpr int64_t kMs = 1'000'000;

uint64_t Dropped(const Servable& servable, DropReason reason) {
  return servable.statistics().dropped[static_cast<size_t>(reason)];
}

TEST_F(BatchedServableTest, RefusesAtOnceWhatCannotBeAnsweredInTime) {
  Start();
  Enqueue(0, {0});
  model_->AwaitRuns(1);
  clock_.Advance(10 * kMs);
  model_->Open();
  sink_.Await(1);
  clock_.AwaitWaiters(1);  // the executor has noted how long that took
  EXPECT_EQ(Enqueue(1, {1}, clock_.NowNs() + 9 * kMs), Servable::Admitted::kRefused);
  EXPECT_EQ(status_.code(), StatusCode::kDeadlineExceeded);
  EXPECT_THAT(status_.message(), HasSubstr("could answer in 10.0 ms, the deadline is in 9.0 ms"));
  EXPECT_EQ(Dropped(*servable_, DropReason::kUnattainable), 1u);
  model_->Close();
  EXPECT_EQ(Enqueue(2, {2}, clock_.NowNs() + 11 * kMs), Servable::Admitted::kYes);
  model_->AwaitRuns(2);
  EXPECT_EQ(Enqueue(3, {3}, clock_.NowNs() + 19 * kMs), Servable::Admitted::kRefused) << "the executor is busy for 10";
  EXPECT_EQ(Enqueue(4, {4}, clock_.NowNs() + 21 * kMs), Servable::Admitted::kYes);
  clock_.Advance(12 * kMs);
  model_->Open();
  const auto answers = sink_.Await(3);
  EXPECT_TRUE(answers.at(2)[0].status.ok()) << "a run that has begun is answered";
  EXPECT_THAT(answers.at(4)[0].status.message(), HasSubstr("came too close"));
  EXPECT_EQ(Dropped(*servable_, DropReason::kHopeless), 1u);
  clock_.AwaitWaiters(1);
  clock_.Advance(1000 * kMs);
  EXPECT_EQ(Enqueue(5, {5}, clock_.NowNs() + kMs), Servable::Admitted::kYes) << "what was measured is stale";
}

TEST_F(BatchedServableTest, CountsWhatItDropsByReason) {
  ModelConfig config = FakeModel::Config();
  config.batching.levels[0].max_queue_size = 2;
  Start(config);
  Enqueue(0, {0});
  model_->AwaitRuns(1);
  Enqueue(1, {1}, clock_.NowNs() + 5);
  Enqueue(2, {2});
  const InferRequest* const abandoned = last_;
  Enqueue(3, {3});
  Status status;
  servable_->Remove(abandoned, &status);
  clock_.Advance(5);
  model_->Open();
  sink_.Await(2);
  EXPECT_EQ(Dropped(*servable_, DropReason::kQueueFull), 1u);
  EXPECT_EQ(Dropped(*servable_, DropReason::kCancelled), 1u);
  EXPECT_EQ(Dropped(*servable_, DropReason::kExpired), 1u);
  EXPECT_EQ(servable_->statistics().fail.count, 3u);
}

TEST_F(BatchedServableTest, AnswersInTheOrderOfArrivalIfAsked) {
  ModelConfig config = FakeModel::Config();
  config.instance_count = 4;
  config.max_batch_size = 1;
  config.batching.preserve_order = true;
  Start(config);
  model_->Open();
  constexpr uint64_t kRequests = 400;
  for (uint64_t i = 0; i < kRequests; ++i) Enqueue(i, {i % 7 == 3 ? -1.0F : 1.0F});
  sink_.Await(kRequests);
  EXPECT_TRUE(std::ranges::is_sorted(sink_.order()));
}

}  // namespace
}  // namespace gristmill
