// SPDX-License-Identifier: Apache-2.0
#include "engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <random>
#include <thread>

#include "core/fake_clock.h"
#include "engine/completion_queue.h"
#include "engine/fakes.h"
#include "protocol/one_row_request.h"

namespace gristmill {
namespace {

using testing::AnyOf;
using testing::ElementsAre;
using testing::HasSubstr;

class EngineTest : public testing::Test {
 protected:
  FakeClock clock_;
  FakeSink sink_;
  std::vector<std::string> bytes_;  // of the requests, which outlive the engine's work on them
  std::map<std::string, std::shared_ptr<FakeModel>> models_;
  Engine engine_{{}, &clock_};
  std::map<std::string, std::shared_ptr<Servable>> servables_;
  std::vector<std::unique_ptr<InferRequest>> requests_;

  EngineTest() { bytes_.reserve(100); }

  void Publish(const std::string& name, bool is_open = true) {
    auto model = std::make_shared<FakeModel>(&clock_);
    if (is_open) model->Open();
    ModelConfig config = FakeModel::Config();
    config.name = name;
    ASSERT_TRUE(engine_.Load(model, config, &servables_[name]).ok());
    ModelEntry entry;
    entry.versions[config.version] = servables_[name];
    engine_.Publish(name, std::move(entry));
    models_[name] = model;
  }

  /// Adds a request with one row to the next Infer.
  void Add(uint64_t ticket, const std::string& model, float x) { AddBytes(ticket, OneRowRequest(model, "x", x)); }

  void AddBytes(uint64_t ticket, std::string bytes) {
    bytes_.push_back(std::move(bytes));
    auto request = std::make_unique<InferRequest>();
    request->received = ReceivedBytes(std::as_bytes(std::span(bytes_.back())), nullptr, nullptr);
    request->sink = &sink_;
    request->ticket = ticket;
    request->arrival_ns = clock_.NowNs();
    requests_.push_back(std::move(request));
  }
};

TEST_F(EngineTest, AnswersEachOfAListOnce) {
  Publish("a");
  Publish("b");
  Add(0, "a", 10);
  Add(1, "b", 20);
  Add(2, "nowhere", 30);
  Add(3, "a", 40);
  AddBytes(4, "\x0a");
  Add(5, "b", -1);
  Add(6, "b", 60);
  engine_.Infer(requests_);
  const auto answers = sink_.Await(7);
  for (uint64_t ticket = 0; ticket < 7; ++ticket) ASSERT_EQ(answers.at(ticket).size(), 1u);
  EXPECT_THAT(answers.at(0)[0].y, ElementsAre(11));
  EXPECT_THAT(answers.at(1)[0].y, ElementsAre(21));
  EXPECT_EQ(answers.at(2)[0].status.code(), StatusCode::kNotFound);
  EXPECT_THAT(answers.at(3)[0].y, ElementsAre(41));
  EXPECT_THAT(answers.at(4)[0].status.message(), HasSubstr("not a ModelInferRequest"));
  EXPECT_THAT(answers.at(5)[0].status.message(), HasSubstr("must not be negative"));
  EXPECT_THAT(answers.at(6)[0].y, ElementsAre(61));
  engine_.Infer({});
}

TEST_F(EngineTest, ASleepingExecutorFindsTheWholeListAtOnce) {
  Publish("a");
  clock_.AwaitWaiters(1);
  for (uint64_t ticket = 0; ticket < 5; ++ticket) Add(ticket, "a", 1);
  engine_.Infer(requests_);
  sink_.Await(5);
  EXPECT_THAT(models_.at("a")->batch_rows(), ElementsAre(5));
}

TEST_F(EngineTest, AnswersARequestThatIsCancelledWhileItWaitsAtOnce) {
  Publish("a", false);
  Add(0, "a", 0);
  Add(1, "a", 10);
  InferRequest* const running = requests_[0].get();
  InferRequest* const waiting = requests_[1].get();
  engine_.Infer(std::span(requests_).first(1));
  models_.at("a")->AwaitRuns(1);
  engine_.Infer(std::span(requests_).subspan(1));
  engine_.Cancel(running);
  engine_.Cancel(waiting);
  EXPECT_EQ(sink_.Await(1).at(1)[0].status.code(), StatusCode::kCancelled);
  EXPECT_EQ(servables_.at("a")->pending(), 1);
  models_.at("a")->Open();
  EXPECT_THAT(sink_.Await(2).at(0)[0].y, ElementsAre(1));
}

TEST_F(EngineTest, NeverQueuesARequestThatIsCancelledBefore) {
  Publish("a");
  Add(0, "a", 0);
  engine_.Cancel(requests_[0].get());
  engine_.Infer(requests_);
  EXPECT_EQ(sink_.Await(1).at(0)[0].status.code(), StatusCode::kCancelled);
  EXPECT_THAT(models_.at("a")->batch_rows(), ElementsAre());
}

/// What a front end does on its thread: its requests come back to a queue of its own.
class Caller {
 public:
  Caller(Engine* engine, uint32_t seed) : engine_(*engine), random_(seed), completions_(&engine->buffers()) {
    EXPECT_TRUE(completions_.Open().ok());
  }

  /// Of a round.
  static constexpr int kRequests = 12;

  /// Hands over a few requests, gives up on some of them and of those before, and takes what has been answered.
  void Round() {
    for (int i = 0; i < kRequests; ++i) {
      auto request = std::make_unique<InferRequest>();
      request->received = ReceivedBytes(std::as_bytes(std::span(bytes_)), nullptr, nullptr);
      request->sink = &completions_;
      request->arrival_ns = engine_.clock().NowNs();
      in_flight_.push_back(request.get());
      requests_.push_back(std::move(request));
      CancelOneIn(8);
    }
    engine_.Infer(requests_);
    requests_.clear();
    for (int i = 0; i < kRequests; ++i) CancelOneIn(2);
    Drain();
  }

  void Finish() {
    while (!in_flight_.empty()) {
      pollfd readable{.fd = completions_.fd(), .events = POLLIN, .revents = 0};
      poll(&readable, 1, -1);
      completions_.Clear();
      Drain();
    }
  }

  const std::map<StatusCode, int>& answers() const { return answers_; }

 private:
  void CancelOneIn(uint32_t chance) {
    if (random_() % chance == 0) engine_.Cancel(in_flight_[random_() % in_flight_.size()]);
  }

  void Drain() {
    completions_.Drain(&finished_);
    for (const Completion& completion : finished_) {
      const auto at = std::ranges::find(in_flight_, completion.request.get());
      ASSERT_NE(at, in_flight_.end()) << "answered twice";
      in_flight_.erase(at);
      ++answers_[completion.status.code()];
    }
    finished_.clear();
  }

  Engine& engine_;
  std::mt19937 random_;
  CompletionQueue completions_;
  const std::string bytes_ = OneRowRequest("a", "x", 1);
  std::vector<std::unique_ptr<InferRequest>> requests_;
  std::vector<InferRequest*> in_flight_;
  std::vector<Completion> finished_;
  std::map<StatusCode, int> answers_;
};

TEST_F(EngineTest, AnswersEveryRequestOnceWhileCallersCancelAndVersionsComeAndGo) {
  constexpr int kCallers = 4, kRounds = 300;
  Publish("a");
  std::deque<Caller> callers;
  std::vector<std::thread> threads;
  std::atomic<int> working = kCallers;
  for (uint32_t seed = 0; seed < kCallers; ++seed) {
    threads.emplace_back([&working, caller = &callers.emplace_back(&engine_, seed)] {
      for (int round = 0; round < kRounds; ++round) caller->Round();
      caller->Finish();
      --working;
    });
  }
  while (working > 0) {
    const std::shared_ptr<Servable> old = std::move(servables_.at("a"));
    Publish("a");
    old->Drain();
  }
  for (std::thread& thread : threads) thread.join();
  servables_.at("a")->Drain();  // its executors may still be about to wake a caller
  for (const Caller& caller : callers) {
    int answered = 0;
    for (const auto& [code, count] : caller.answers()) {
      EXPECT_THAT(code, AnyOf(StatusCode::kOk, StatusCode::kCancelled));
      answered += count;
    }
    EXPECT_EQ(answered, kRounds * Caller::kRequests);
  }
}

}  // namespace
}  // namespace gristmill
