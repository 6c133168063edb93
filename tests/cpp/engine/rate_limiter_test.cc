// SPDX-License-Identifier: Apache-2.0
#include "engine/rate_limiter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <list>
#include <thread>

#include "batching/adaptive_batch_policy.h"
#include "core/clock.h"
#include "engine/batched_servable.h"
#include "engine/fakes.h"

namespace gristmill {
namespace {

using testing::HasSubstr;

using Member = RateLimiter::Member;

std::unique_ptr<Member> Join(RateLimiter* limiter, std::vector<ResourceNeed> needs, int64_t weight = 1,
                             int* wakes = nullptr) {
  std::unique_ptr<Member> member;
  const Status status = Member::Join(
      limiter, std::move(needs), weight, [wakes] { *wakes += wakes != nullptr; }, &member);
  EXPECT_TRUE(status.ok()) << status.message();
  return member;
}

/// Has members that always want to run take turns; how often each ran.
std::vector<int> TakeTurns(const std::vector<Member*>& members, int turns) {
  std::vector<int> runs(members.size());
  for (int turn = 0; turn < turns; ++turn) {
    // All wait before one of them can run.
    for (int round = 0; round < 2; ++round) {
      for (size_t i = 0; i < members.size(); ++i) {
        if (!members[i]->TryAcquire()) continue;
        ++runs[i];
        for (Member* other : members) {
          if (other == members[i]) continue;
          EXPECT_FALSE(other->TryAcquire());
        }
        members[i]->Release(true);
      }
    }
  }
  return runs;
}

TEST(RateLimiter, RunsAreSharedByWeight) {
  RateLimiter limiter;
  int wakes = 0;
  const auto a = Join(&limiter, {{"r", 1}}, 1, &wakes);
  const auto b = Join(&limiter, {{"r", 1}}, 3, &wakes);
  const std::vector<int> runs = TakeTurns({a.get(), b.get()}, 400);
  EXPECT_NEAR(static_cast<double>(runs[0]) / runs[1], 3, 0.1);
}

TEST(RateLimiter, ThereIsWhatTheServerSaysOrWhatOneModelNeeds) {
  int wakes = 0;
  RateLimiter limiter({{"known", 3}});
  const auto big = Join(&limiter, {{"unknown", 5}}, 1, &wakes);
  const auto small = Join(&limiter, {{"unknown", 1}, {"known", 2}}, 1, &wakes);
  EXPECT_TRUE(big->TryAcquire());
  EXPECT_FALSE(small->TryAcquire());
  big->Release(false);
  EXPECT_EQ(wakes, 1);
  EXPECT_TRUE(small->TryAcquire());
  small->Release(false);
  std::unique_ptr<Member> never;
  const Status status = Member::Join(
      &limiter, {{"known", 4}}, 1, [] {}, &never);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("needs 4 of resource 'known', of which the server has 3"));
}

TEST(RateLimiter, ARunThatNeedsMuchIsNotStarvedByRunsThatNeedLittle) {
  int wakes = 0;
  RateLimiter limiter({{"r", 2}});
  const auto big = Join(&limiter, {{"r", 2}}, 1, &wakes);
  const auto one = Join(&limiter, {{"r", 1}}, 1, &wakes);
  const auto two = Join(&limiter, {{"r", 1}}, 1, &wakes);
  ASSERT_TRUE(one->TryAcquire());
  EXPECT_FALSE(big->TryAcquire());
  EXPECT_FALSE(one->TryAcquire()) << "one has run already, so big comes first";
  one->Release(false);
  EXPECT_TRUE(big->TryAcquire());
  EXPECT_FALSE(two->TryAcquire());
  big->Release(false);
}

TEST(RateLimiter, WhoWasIdleIsNotOwedAnything) {
  int wakes = 0;
  RateLimiter limiter;
  const auto busy = Join(&limiter, {{"r", 1}}, 1, &wakes);
  const auto idle = Join(&limiter, {{"r", 1}}, 1, &wakes);
  for (int i = 0; i < 1000; ++i) {
    ASSERT_TRUE(busy->TryAcquire());
    busy->Release(false);
  }
  const std::vector<int> runs = TakeTurns({busy.get(), idle.get()}, 50);
  EXPECT_NEAR(runs[0], runs[1], 2);
}

TEST(RateLimiter, WhoDoesNotWaitAnyMoreIsNotWaitedFor) {
  int wakes = 0;
  RateLimiter limiter;
  const auto a = Join(&limiter, {{"r", 1}}, 1, &wakes);
  const auto b = Join(&limiter, {{"r", 1}}, 1, &wakes);
  const auto c = Join(&limiter, {{"r", 1}}, 5, &wakes);
  const auto other = Join(&limiter, {{"s", 1}}, 1, &wakes);
  ASSERT_TRUE(c->TryAcquire());
  EXPECT_TRUE(other->TryAcquire()) << "it needs something else";
  EXPECT_FALSE(a->TryAcquire());
  EXPECT_FALSE(c->TryAcquire());
  EXPECT_TRUE(a->StopWaiting());
  EXPECT_FALSE(a->StopWaiting());
  c->Release(false);
  EXPECT_TRUE(c->TryAcquire());
  c->Release(false);
  other->Release(false);
}

/// Counts runs that are under way in all models of its kind.
class CountedModel final : public BackendModel {
 public:
  explicit CountedModel(std::atomic<int>* running) : running_(*running) {}
  const ModelSignature& signature() const override { return signature_; }
  Status CreateInstance(const ModelConfig&, std::unique_ptr<BackendInstance>* instance) override {
    *instance = std::make_unique<Instance>(&running_);
    return Status::Ok();
  }

 private:
  class Instance final : public BackendInstance {
   public:
    explicit Instance(std::atomic<int>* running) : running_(*running) {}
    Status Execute(const Batch& batch, BatchResult* result) override {
      EXPECT_EQ(running_.fetch_add(1), 0);
      y_.assign(static_cast<size_t>(batch.total_rows), 1);
      result->outputs = {{{DataType::kFp32, Shape{batch.total_rows, 1}, AsBytes(y_)}, {}}};
      running_.fetch_sub(1);
      return Status::Ok();
    }

   private:
    std::atomic<int>& running_;
    std::vector<float> y_;
  };

  std::atomic<int>& running_;
  const ModelSignature signature_{};
};

/// Keeps what it is given, so that it can be cancelled at any time.
class KeepingSink final : public ResponseSink {
 public:
  void Complete(std::unique_ptr<InferRequest> request, const Status&, const InferResponse*) override {
    MutexLock lock(mu_);
    kept_.push_back(std::move(request));
    changed_.NotifyAll();
  }
  void Flush() override {}
  void Await(size_t count) {
    MutexLock lock(mu_);
    while (kept_.size() < count) changed_.Wait(mu_);
  }

 private:
  Mutex mu_;
  CondVar changed_;
  std::vector<std::unique_ptr<InferRequest>> kept_ GUARDED_BY(mu_);
};

TEST(RateLimiter, ModelsThatShareAResourceRunOneAtATimeAndAnswerAll) {
  RateLimiter limiter;
  AdaptiveBatchPolicy policy;
  std::atomic<int> running{0};
  const std::vector<float> x = {1};
  KeepingSink sink;
  std::vector<std::shared_ptr<Servable>> models;
  for (int i = 0; i < 3; ++i) {
    ModelConfig config = FakeModel::Config();
    config.resources = {{"r", 1}};
    config.weight = i + 1;
    config.instance_count = 2;
    const BatchedServableOptions options{.config = config,
                                         .clock = &SystemClock(),
                                         .policy = &policy,
                                         .limiter = &limiter,
                                         .short_run_ns = i == 0 ? 1'000'000'000 : 0};
    ASSERT_TRUE(
        BatchedServable::Create(options, std::make_shared<CountedModel>(&running), &models.emplace_back()).ok());
  }
  constexpr uint64_t kRequests = 2000;
  std::vector<std::thread> callers;
  for (uint64_t caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&, caller] {
      for (uint64_t i = 0; i < kRequests; ++i) {
        auto request = MakeRequest(caller * kRequests + i, &sink, x);
        request->arrival_ns = SystemClock().NowNs();
        Servable& model = *models[(caller + i) % models.size()];
        InferRequest* const sent = request.get();
        Status status;
        ASSERT_EQ(model.Enqueue(&request, &status), Servable::Admitted::kYes) << status.message();
        std::unique_ptr<InferRequest> removed = i % 3 == 0 ? model.Remove(sent, &status) : nullptr;
        if (removed != nullptr) {
          sink.Complete(std::move(removed), status, nullptr);
        }
        model.Wake(i % 2 == 0 ? MayRun::kYes : MayRun::kNo);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  sink.Await(4 * kRequests);
  for (const auto& model : models) model->Drain();
}

TEST(RateLimiter, AModelThatCanNeverRunIsNotMade) {
  RateLimiter limiter({{"r", 1}});
  AdaptiveBatchPolicy policy;
  std::atomic<int> running{0};
  ModelConfig config = FakeModel::Config();
  config.resources = {{"r", 2}};
  const BatchedServableOptions options{
      .config = config, .clock = &SystemClock(), .policy = &policy, .limiter = &limiter};
  std::shared_ptr<Servable> servable;
  const Status status = BatchedServable::Create(options, std::make_shared<CountedModel>(&running), &servable);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(servable, nullptr);
}

}  // namespace
}  // namespace gristmill
