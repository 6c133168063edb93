// SPDX-License-Identifier: Apache-2.0
#include "engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/fake_clock.h"
#include "engine/fakes.h"
#include "protocol/one_row_request.h"

namespace gristmill {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class EngineTest : public testing::Test {
 protected:
  FakeClock clock_;
  FakeSink sink_;
  std::vector<std::string> bytes_;  // of the requests, which outlive the engine's work on them
  std::map<std::string, std::shared_ptr<FakeModel>> models_;
  Engine engine_{{}, &clock_};
  std::vector<std::unique_ptr<InferRequest>> requests_;

  EngineTest() { bytes_.reserve(100); }

  void Publish(const std::string& name) {
    auto model = std::make_shared<FakeModel>(&clock_);
    model->Open();
    ModelConfig config = FakeModel::Config();
    config.name = name;
    std::shared_ptr<Servable> servable;
    ASSERT_TRUE(engine_.Load(model, config, &servable).ok());
    ModelEntry entry;
    entry.versions[config.version] = servable;
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

}  // namespace
}  // namespace gristmill
