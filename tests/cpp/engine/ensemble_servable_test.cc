// SPDX-License-Identifier: Apache-2.0
#include "engine/ensemble_servable.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <thread>

#include "batching/adaptive_batch_policy.h"
#include "core/fake_clock.h"
#include "engine/batched_servable.h"
#include "engine/fakes.h"

namespace gristmill {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr int64_t kMs = 1'000'000;

EnsembleStep Step(const std::string& model, const std::string& x, const std::string& y) {
  return {.model = model, .version = "", .inputs = {{"x", x}}, .outputs = {{"y", y}}};
}

TensorSpec Fp32(const std::string& name) { return {name, DataType::kFp32, {1}}; }

class EnsembleServableTest : public testing::Test {
 protected:
  FakeClock clock_;
  AdaptiveBatchPolicy policy_;
  BufferPool buffers_{{}};
  FakeSink sink_;
  StepSink step_sink_;
  VersionTable versions_;
  std::map<std::string, std::shared_ptr<FakeModel>> models_;
  std::map<std::string, std::shared_ptr<Servable>> steps_;
  std::shared_ptr<Servable> ensemble_;
  std::deque<std::vector<float>> values_;  // keeps the requests' bytes
  InferRequest* last_ = nullptr;
  Status status_;

  /// A model of that name: y = x + 1, for x that are not negative.
  void Publish(const std::string& name) {
    auto& model = models_[name] = std::make_shared<FakeModel>(&clock_);
    model->Open();
    ModelConfig config = FakeModel::Config();
    config.name = name;
    std::shared_ptr<Servable> servable;
    ASSERT_TRUE(
        BatchedServable::Create({.config = config, .clock = &clock_, .policy = &policy_}, model, &servable).ok());
    steps_[name] = servable;
    Enter(name, servable);
  }

  void Enter(const std::string& name, const std::shared_ptr<Servable>& servable) {
    ModelEntry entry;
    entry.versions[3] = servable;
    versions_.Publish(name, std::move(entry));
  }

  static ModelConfig Config(std::vector<EnsembleStep> steps, std::vector<TensorSpec> outputs) {
    return {.name = "whole",
            .version = 1,
            .max_batch_size = 8,
            .inputs = {Fp32("x")},
            .outputs = std::move(outputs),
            .steps = std::move(steps)};
  }

  Status Make(const ModelConfig& config, std::shared_ptr<Servable>* servable) {
    return EnsembleServable::Create(
        {.config = config, .clock = &clock_, .versions = &versions_, .buffers = &buffers_, .sink = &step_sink_},
        servable);
  }

  void Start(std::vector<EnsembleStep> steps, std::vector<TensorSpec> outputs) {
    for (const EnsembleStep& step : steps) {
      if (!steps_.contains(step.model)) Publish(step.model);
    }
    ASSERT_TRUE(Make(Config(std::move(steps), std::move(outputs)), &ensemble_).ok());
  }

  void TearDown() override {
    for (auto& [name, model] : models_) model->Open();
    if (ensemble_ != nullptr) ensemble_->Drain();
    for (auto& [name, servable] : steps_) servable->Drain();
  }

  Servable::Admitted Send(uint64_t ticket, float x, std::vector<std::string_view> outputs = {},
                          int64_t deadline_ns = kNever) {
    values_.push_back({x});
    auto request = MakeRequest(ticket, &sink_, values_.back());
    request->arrival_ns = clock_.NowNs();
    request->deadline_ns = deadline_ns;
    request->requested_outputs = std::move(outputs);
    last_ = request.get();
    const Servable::Admitted admitted = ensemble_->Enqueue(&request, &status_);
    ensemble_->Wake(MayRun::kNo);
    return admitted;
  }
};

TEST_F(EnsembleServableTest, HandsWhatAStepMakesToTheNext) {
  Start({Step("a", "x", "once"), Step("b", "once", "twice")}, {Fp32("twice"), Fp32("once")});
  Send(0, 1);
  Send(1, 2, {"once"});
  const auto answers = sink_.Await(2);
  EXPECT_THAT(answers.at(0)[0].y, ElementsAre(3));
  EXPECT_THAT(answers.at(1)[0].y, ElementsAre(3));
  EXPECT_EQ(answers.at(0)[0].version, "1");
  ensemble_->Drain();
  EXPECT_EQ(ensemble_->statistics().success.count, 2u);
  EXPECT_EQ(ensemble_->statistics().inference_count, 2u);
  EXPECT_EQ(ensemble_->pending(), 0);
  EXPECT_EQ(models_["b"]->batch_rows().size(), 1u);  // nobody needed it for the second
  EXPECT_EQ(buffers_.in_use_bytes(), 0u);
}

TEST_F(EnsembleServableTest, RunsStepsThatDoNotDependOnEachOtherAtTheSameTime) {
  Start({Step("a", "x", "middle"), Step("left", "middle", "l"), Step("right", "middle", "r")}, {Fp32("l"), Fp32("r")});
  models_["left"]->Close();
  models_["right"]->Close();
  Send(0, 1);
  models_["left"]->AwaitRuns(1);
  models_["right"]->AwaitRuns(1);
  models_["left"]->Open();
  models_["right"]->Open();
  EXPECT_THAT(sink_.Await(1).at(0)[0].y, ElementsAre(3));
}

TEST_F(EnsembleServableTest, OneModelMayBeSeveralSteps) {
  Start({Step("a", "x", "1"), Step("a", "1", "2"), Step("a", "2", "3")}, {Fp32("3")});
  for (uint64_t i = 0; i < 20; ++i) Send(i, static_cast<float>(i));
  for (const auto& [ticket, answers] : sink_.Await(20)) {
    EXPECT_THAT(answers[0].y, ElementsAre(static_cast<float>(ticket) + 3));
  }
}

TEST_F(EnsembleServableTest, AFailingStepIsTheAnswerAndLeavesOthersAlone) {
  Start({Step("a", "x", "once"), Step("b", "x", "other")}, {Fp32("once"), Fp32("other")});
  models_["b"]->Close();
  Send(9, 1);  // keeps b busy
  models_["b"]->AwaitRuns(1);
  Send(0, -1);  // fails in a; waits in b, and is taken back
  EXPECT_EQ(sink_.Await(1).at(0)[0].status.code(), StatusCode::kInternal);
  EXPECT_THAT(sink_.Await(1).at(0)[0].status.message(), HasSubstr("step 'a' of ensemble 'whole': x must not"));
  EXPECT_EQ(steps_["b"]->pending(), 1);
  models_["b"]->Open();
  EXPECT_THAT(sink_.Await(2).at(9)[0].y, ElementsAre(2));
}

TEST_F(EnsembleServableTest, SaysWhichModelIsMissing) {
  Start({Step("a", "x", "once"), Step("b", "once", "twice")}, {Fp32("twice")});
  versions_.Forget("b");
  Send(0, 1);
  const Status status = sink_.Await(1).at(0)[0].status;
  EXPECT_EQ(status.code(), StatusCode::kNotFound);
  EXPECT_THAT(status.message(), HasSubstr("step 'b' of ensemble 'whole': there is no model 'b'"));
}

TEST_F(EnsembleServableTest, ARequestThatIsCancelledLeavesTheStepsQueues) {
  Start({Step("a", "x", "once"), Step("b", "once", "twice")}, {Fp32("twice")});
  models_["a"]->Close();
  Send(0, 1);
  models_["a"]->AwaitRuns(1);
  Send(1, 1);
  Status status;
  EXPECT_EQ(ensemble_->Remove(last_, &status), nullptr);
  EXPECT_EQ(sink_.Await(1).at(1)[0].status.code(), StatusCode::kCancelled);
  EXPECT_EQ(steps_["a"]->pending(), 1);
  // One that is being run is answered when its run is over, and goes no further.
  Send(2, 1);
  models_["a"]->Open();
  EXPECT_THAT(sink_.Await(3).at(2)[0].y, ElementsAre(3));
}

TEST_F(EnsembleServableTest, StepsHaveTheDeadlineOfTheWhole) {
  Start({Step("a", "x", "once"), Step("b", "once", "twice")}, {Fp32("twice")});
  models_["a"]->Close();
  Send(0, 1, {}, clock_.NowNs() + kMs);
  models_["a"]->AwaitRuns(1);
  clock_.Advance(2 * kMs);
  models_["a"]->Open();
  const Status status = sink_.Await(1).at(0)[0].status;
  EXPECT_EQ(status.code(), StatusCode::kDeadlineExceeded);
  EXPECT_THAT(status.message(), HasSubstr("step 'b'"));
}

TEST_F(EnsembleServableTest, AnEnsembleMayBeAStep) {
  Start({Step("a", "x", "once"), Step("b", "once", "y")}, {Fp32("y")});
  Enter("inner", ensemble_);
  const std::shared_ptr<Servable> inner = ensemble_;
  ASSERT_TRUE(Make(Config({Step("inner", "x", "m"), Step("inner", "m", "out")}, {Fp32("out")}), &ensemble_).ok());
  Send(0, 1);
  Send(1, -1);
  const auto answers = sink_.Await(2);
  EXPECT_THAT(answers.at(0)[0].y, ElementsAre(5));
  EXPECT_THAT(answers.at(1)[0].status.message(), HasSubstr("step 'inner' of ensemble 'whole': step 'a' of"));
  ensemble_->Drain();
  versions_.Forget("inner");
}

TEST_F(EnsembleServableTest, ADrainAnswersWhatWasTaken) {
  Start({Step("a", "x", "once"), Step("b", "once", "twice")}, {Fp32("twice")});
  models_["a"]->Close();
  for (uint64_t i = 0; i < 5; ++i) Send(i, 1);
  std::thread opener([&] { models_["a"]->Open(); });
  ensemble_->Drain();
  opener.join();
  EXPECT_EQ(sink_.Await(5).size(), 5u);
  EXPECT_EQ(Send(5, 1), Servable::Admitted::kClosed);
}

TEST_F(EnsembleServableTest, ManyCallersGetTheirOwnAnswersWhileStepsAreReplaced) {
  Start({Step("a", "x", "once"), Step("b", "once", "l"), Step("b", "x", "r"), Step("a", "l", "end")},
        {Fp32("end"), Fp32("r")});
  std::atomic<bool> done{false};
  std::vector<std::shared_ptr<Servable>> old;
  std::thread replacer([&] {
    while (!done) {
      old.push_back(steps_["b"]);
      auto model = std::make_shared<FakeModel>(&clock_);
      model->Open();
      ModelConfig config = FakeModel::Config();
      config.name = "b";
      std::shared_ptr<Servable> servable;
      ASSERT_TRUE(
          BatchedServable::Create({.config = config, .clock = &clock_, .policy = &policy_}, model, &servable).ok());
      Enter("b", servable);
      steps_["b"] = servable;
      old.back()->Drain();
    }
  });
  constexpr uint64_t kPerThread = 200;
  std::vector<std::vector<float>> xs;
  for (uint64_t i = 0; i < 4 * kPerThread; ++i) xs.push_back({static_cast<float>(i)});
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t i = 0; i < kPerThread; ++i) {
        const uint64_t ticket = t * kPerThread + i;
        auto request = MakeRequest(ticket, &sink_, xs[ticket]);
        Status status;
        ASSERT_EQ(ensemble_->Enqueue(&request, &status), Servable::Admitted::kYes);
        ensemble_->Wake(i % 2 == 0 ? MayRun::kYes : MayRun::kNo);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& [ticket, answers] : sink_.Await(4 * kPerThread)) {
    ASSERT_EQ(answers.size(), 1u);
    ASSERT_THAT(answers[0].y, ElementsAre(static_cast<float>(ticket) + 3)) << answers[0].status.message();
  }
  done = true;
  replacer.join();
  ensemble_->Drain();
  EXPECT_EQ(ensemble_->pending(), 0);
  EXPECT_EQ(buffers_.in_use_bytes(), 0u);
}

TEST_F(EnsembleServableTest, RefusesStepsThatDoNotFit) {
  const auto problem = [&](std::vector<EnsembleStep> steps, std::vector<TensorSpec> outputs) {
    std::shared_ptr<Servable> servable;
    const Status status = Make(Config(std::move(steps), std::move(outputs)), &servable);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(problem({Step("a", "nowhere", "y")}, {Fp32("y")}),
              HasSubstr("no step before it makes its input 'nowhere'"));
  EXPECT_THAT(problem({Step("a", "x", "x")}, {Fp32("x")}), HasSubstr("its output 'x' is there already"));
  EXPECT_THAT(problem({Step("a", "x", "y")}, {Fp32("z")}), HasSubstr("no step makes its output 'z'"));
}

}  // namespace
}  // namespace gristmill
