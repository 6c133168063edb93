// SPDX-License-Identifier: Apache-2.0
#include "engine/sequence_servable.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <thread>

#include "batching/adaptive_batch_policy.h"
#include "core/fake_clock.h"
#include "engine/fakes.h"

namespace gristmill {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr int64_t kMs = 1'000'000;

/// x, START, END, CORRID, TOTAL_IN -> y, TOTAL_OUT: both are TOTAL_IN + x. A batch with a negative x fails as a whole.
class RunningTotal final : public FakeModel {
 public:
  using FakeModel::FakeModel;

  struct Row {
    float x, start, end, id;
    bool operator==(const Row&) const = default;
  };

  static ModelConfig Config() {
    ModelConfig config = FakeModel::Config();
    const auto control = [](ControlInput::Kind kind, const char* name, DataType dtype) {
      return ControlInput{.kind = kind, .tensor = {name, dtype, {1}}};
    };
    config.sequence =
        SequenceOptions{.max_idle_us = 1000,
                        .max_sequences_per_instance = 8,
                        .controls = {control(ControlInput::Kind::kStart, "START", DataType::kFp32),
                                     control(ControlInput::Kind::kEnd, "END", DataType::kFp32),
                                     control(ControlInput::Kind::kCorrelationId, "CORRID", DataType::kUint64)},
                        .states = {{.input = {"TOTAL_IN", DataType::kFp32, {1}},
                                    .output_name = "TOTAL_OUT",
                                    .initial_dims = {1},
                                    .initial_data = std::string("\0\0\x20\x41", 4)}}};  // 10
    return config;
  }

  std::vector<Row> rows() {
    MutexLock lock(rows_mu_);
    return rows_;
  }

 private:
  Status Compute(const Batch& batch, std::vector<std::vector<float>>* outputs) override {
    outputs->resize(2);
    MutexLock lock(rows_mu_);
    for (const BatchItem& item : batch.items) {
      uint64_t id = 0;
      std::memcpy(&id, item.inputs[3].data.data(), sizeof id);
      const auto value = [&](size_t input) { return AsFloats(item.inputs[input].data)[0]; };
      rows_.push_back({value(0), value(1), value(2), static_cast<float>(id)});
      for (auto& output : *outputs) output.push_back(value(4) + value(0));
    }
    for (const BatchItem& item : batch.items) {
      if (AsFloats(item.inputs[0].data)[0] < 0) return Internal("x must not be negative");
    }
    return Status::Ok();
  }

  Mutex rows_mu_;
  std::vector<Row> rows_ GUARDED_BY(rows_mu_);
};

class SequenceServableTest : public testing::Test {
 protected:
  FakeClock clock_;
  AdaptiveBatchPolicy policy_;
  FakeSink sink_;
  std::shared_ptr<RunningTotal> model_ = std::make_shared<RunningTotal>(&clock_);
  std::shared_ptr<Servable> servable_;
  std::deque<std::vector<float>> values_;  // keeps the requests' bytes
  InferRequest* last_ = nullptr;
  Status status_;

  void Start(ModelConfig config = RunningTotal::Config()) {
    const Status status =
        SequenceServable::Create({.config = config, .clock = &clock_, .policy = &policy_}, model_, &servable_);
    ASSERT_TRUE(status.ok()) << status.message();
  }

  void TearDown() override {
    model_->Open();
    servable_.reset();
  }

  Servable::Admitted Send(uint64_t ticket, SequenceTag tag, float x, std::vector<std::string_view> outputs = {}) {
    values_.push_back({x});
    auto request = MakeRequest(ticket, &sink_, values_.back());
    request->arrival_ns = clock_.NowNs();
    request->sequence = tag;
    request->requested_outputs = std::move(outputs);
    last_ = request.get();
    const Servable::Admitted admitted = servable_->Enqueue(&request, &status_);
    servable_->Wake(MayRun::kNo);
    return admitted;
  }

  /// The answers to tickets 0, 1, ….
  std::vector<float> Totals(size_t count) {
    std::vector<float> totals;
    for (const auto& [ticket, answers] : sink_.Await(count)) {
      EXPECT_EQ(answers.size(), 1u) << ticket;
      totals.push_back(answers[0].status.ok() ? answers[0].y[0] : -1);
    }
    return totals;
  }
};

TEST_F(SequenceServableTest, KeepsTheStateOfEachSequenceFromRequestToRequest) {
  Start();
  model_->Open();
  Send(0, {.number = 7, .start = true}, 1);
  Send(1, {.number = 8, .start = true}, 100);
  Send(2, {.number = 7}, 2);
  Send(3, {.number = 8, .end = true}, 200);
  Send(4, {.number = 7, .end = true}, 3);
  EXPECT_THAT(Totals(5), ElementsAre(11, 110, 13, 310, 16));
  EXPECT_EQ(servable_->pending(), 0);
  EXPECT_EQ(servable_->statistics().success.count, 5u);
}

TEST_F(SequenceServableTest, TellsTheModelWhereARowStands) {
  Start();
  model_->Open();
  Send(0, {.number = 7, .start = true}, 1);
  Send(1, {.number = 7}, 2);
  Send(2, {.number = 7, .end = true}, 3);
  Totals(3);
  EXPECT_THAT(model_->rows(),
              ElementsAre(RunningTotal::Row{1, 1, 0, 7}, RunningTotal::Row{2, 0, 0, 7}, RunningTotal::Row{3, 0, 1, 7}));
}

TEST_F(SequenceServableTest, RunsDifferentSequencesTogetherAndOneSequenceInTurn) {
  Start();
  Send(0, {.number = 1, .start = true}, 1);
  model_->AwaitRuns(1);
  Send(1, {.number = 1}, 2);
  Send(2, {.number = 2, .start = true}, 20);
  Send(3, {.number = 3, .start = true}, 30);
  Send(4, {.number = 2}, 21);
  model_->Open();
  EXPECT_THAT(Totals(5), ElementsAre(11, 13, 30, 40, 51));
  EXPECT_THAT(model_->batch_rows(), ElementsAre(1, 3, 1));
}

TEST_F(SequenceServableTest, GivesCallersTheModelsOwnOutputsOnly) {
  Start();
  model_->Open();
  Send(0, {.number = 1, .start = true}, 1, {"y"});
  Send(1, {.number = 1}, 1, {"y", "y"});
  EXPECT_THAT(Totals(2), ElementsAre(11, 12));
  EXPECT_EQ(Send(2, {.number = 1}, 1, {"TOTAL_OUT"}), Servable::Admitted::kRefused);
  EXPECT_THAT(status_.message(), HasSubstr("no output 'TOTAL_OUT'"));
}

TEST_F(SequenceServableTest, RefusesWhatBelongsToNoSequence) {
  Start();
  model_->Open();
  EXPECT_EQ(Send(0, {}, 1), Servable::Admitted::kRefused);
  EXPECT_THAT(status_.message(), HasSubstr("expected a sequence_id"));
  EXPECT_EQ(Send(0, {.number = 5}, 1), Servable::Admitted::kRefused);
  EXPECT_EQ(status_.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(status_.message(), HasSubstr("knows no sequence '5'"));
  Send(0, {.number = 5, .start = true, .end = true}, 1);
  EXPECT_THAT(Totals(1), ElementsAre(11));
  EXPECT_EQ(Send(1, {.number = 5}, 1), Servable::Admitted::kRefused);
  EXPECT_EQ(Send(1, {.name = "five", .start = true}, 1), Servable::Admitted::kRefused);
  EXPECT_THAT(status_.message(), HasSubstr("UINT64, not the text 'five'"));
  values_.push_back({1, 2});
  auto two_rows = MakeRequest(1, &sink_, values_.back());
  two_rows->sequence = {.number = 6, .start = true};
  EXPECT_EQ(servable_->Enqueue(&two_rows, &status_), Servable::Admitted::kRefused);
  EXPECT_THAT(status_.message(), HasSubstr("one row per request, got 2"));
}

TEST_F(SequenceServableTest, ASecondStartBeginsAnew) {
  Start();
  model_->Open();
  Send(0, {.number = 1, .start = true}, 1);
  Send(1, {.number = 1}, 1);
  Send(2, {.number = 1, .start = true}, 5);
  Send(3, {.number = 1, .end = true}, 1);
  Send(4, {.number = 1, .start = true}, 7);
  EXPECT_THAT(Totals(5), ElementsAre(11, 12, 15, 16, 17));
}

TEST_F(SequenceServableTest, AFailureLeavesTheSequenceAsItWas) {
  Start();
  model_->Open();
  Send(0, {.number = 1, .start = true}, -1);
  Send(1, {.number = 1}, 2);
  Send(2, {.number = 1}, -1);
  Send(3, {.number = 1}, 4);
  EXPECT_THAT(Totals(4), ElementsAre(-1, 12, -1, 16));
  EXPECT_EQ(model_->rows()[1], (RunningTotal::Row{2, 1, 0, 1}));
  EXPECT_EQ(model_->rows()[3], (RunningTotal::Row{4, 0, 0, 1}));
}

TEST_F(SequenceServableTest, ARequestThatIsTakenBackIsNotRunAndItsStartFallsToTheNext) {
  Start();
  Send(0, {.number = 9, .start = true}, 0);
  model_->AwaitRuns(1);
  Send(1, {.number = 1, .start = true}, 1);  // waits for the instance
  const InferRequest* in_queue = last_;
  Send(2, {.number = 1}, 2);  // waits for its turn
  const InferRequest* in_turn = last_;
  Send(3, {.number = 1}, 3);
  Status status;
  EXPECT_EQ(servable_->Remove(in_turn, &status)->ticket, 2u);
  EXPECT_EQ(status.code(), StatusCode::kCancelled);
  std::unique_ptr<InferRequest> removed = servable_->Remove(in_queue, &status);
  ASSERT_NE(removed, nullptr);
  EXPECT_EQ(removed->inputs.size(), 1u);
  EXPECT_EQ(removed->sink, &sink_);
  model_->Open();
  EXPECT_THAT(sink_.Await(2).at(3)[0].y, ElementsAre(13));
  EXPECT_EQ(model_->rows()[1], (RunningTotal::Row{3, 1, 0, 1}));
  EXPECT_EQ(servable_->pending(), 0);
}

TEST_F(SequenceServableTest, AStartThatIsTakenBackIsKeptForARequestThatIsStillToCome) {
  Start();
  Send(0, {.number = 9, .start = true}, 0);
  model_->AwaitRuns(1);
  Send(1, {.number = 1, .start = true}, 1);
  Status status;
  EXPECT_NE(servable_->Remove(last_, &status), nullptr);
  Send(2, {.number = 1}, 2);
  model_->Open();
  EXPECT_THAT(sink_.Await(2).at(2)[0].y, ElementsAre(12));
}

TEST_F(SequenceServableTest, ASequenceThatIsIdleForTooLongIsOver) {
  Start();
  model_->Open();
  Send(0, {.number = 1, .start = true}, 1);
  Totals(1);
  while (servable_->pending() > 0) std::this_thread::yield();
  // The sequence becomes idle a moment after its answer; it is over one idle time later at the latest.
  Servable::Admitted admitted = Servable::Admitted::kYes;
  for (uint64_t ticket = 1; admitted == Servable::Admitted::kYes; ++ticket) {
    clock_.Advance(kMs);
    admitted = Send(ticket, {.number = 1}, 1);
    if (admitted == Servable::Admitted::kYes) sink_.Await(ticket + 1);
  }
  EXPECT_THAT(status_.message(), HasSubstr("knows no sequence '1'"));
}

TEST_F(SequenceServableTest, SequencesBeyondTheSlotsWaitUntilOneIsOver) {
  ModelConfig config = RunningTotal::Config();
  config.sequence->max_sequences_per_instance = 1;
  Start(config);
  model_->Open();
  Send(0, {.number = 1, .start = true}, 1);
  Totals(1);
  Send(1, {.number = 2, .start = true, .end = true}, 2);
  Send(2, {.number = 3, .start = true}, 3);
  EXPECT_EQ(servable_->pending(), 2);
  Send(3, {.number = 1, .end = true}, 4);
  EXPECT_THAT(Totals(4), ElementsAre(11, 12, 13, 15));
  // And the one that holds the slot now is over when its time is.
  Send(4, {.number = 4, .start = true}, 5);
  for (int i = 0; servable_->pending() > 0; ++i) {
    clock_.Advance(kMs);
    std::this_thread::yield();
  }
  EXPECT_THAT(Totals(5), ElementsAre(11, 12, 13, 15, 15));
}

TEST_F(SequenceServableTest, ADrainAnswersAllThatWasTaken) {
  ModelConfig config = RunningTotal::Config();
  config.sequence->max_sequences_per_instance = 1;
  Start(config);
  model_->Open();
  Send(0, {.number = 1, .start = true}, 1);
  Totals(1);
  Send(1, {.number = 2, .start = true}, 2);
  Send(2, {.number = 3, .start = true}, 3);
  servable_->Drain();
  EXPECT_THAT(Totals(3), ElementsAre(11, 12, 13));
  EXPECT_EQ(Send(3, {.number = 3}, 3), Servable::Admitted::kClosed);
}

TEST_F(SequenceServableTest, RefusesWhatItsInstanceRefusesAndGoesOn) {
  Start();
  Send(0, {.number = 1, .start = true}, 1);
  model_->AwaitRuns(1);
  values_.push_back({2});
  auto expired = MakeRequest(1, &sink_, values_.back());
  expired->sequence = {.number = 1};
  expired->deadline_ns = clock_.NowNs() + kMs;
  EXPECT_EQ(servable_->Enqueue(&expired, &status_), Servable::Admitted::kYes);
  Send(2, {.number = 1, .end = true}, 3);
  clock_.Advance(2 * kMs);
  model_->Open();
  const auto answers = sink_.Await(3);
  EXPECT_EQ(answers.at(1)[0].status.code(), StatusCode::kDeadlineExceeded);
  EXPECT_THAT(answers.at(2)[0].y, ElementsAre(14));
  EXPECT_EQ(servable_->pending(), 0);
}

TEST_F(SequenceServableTest, ManyCallersAtTheSameTimeGetTheirOwnTotals) {
  ModelConfig config = RunningTotal::Config();
  config.instance_count = 2;
  config.sequence->max_sequences_per_instance = 3;
  Start(config);
  model_->Open();
  constexpr uint64_t kCallers = 8;
  constexpr uint64_t kSequences = 10;
  constexpr uint64_t kRequests = 5;
  const std::vector<float> one = {1};
  std::vector<std::thread> threads;
  for (uint64_t caller = 0; caller < kCallers; ++caller) {
    threads.emplace_back([&, caller] {
      for (uint64_t s = 0; s < kSequences; ++s) {
        for (uint64_t i = 0; i < kRequests; ++i) {
          auto request = MakeRequest((caller * kSequences + s) * kRequests + i, &sink_, one);
          request->sequence = {.number = 1 + caller * kSequences + s, .start = i == 0, .end = i + 1 == kRequests};
          Status status;
          ASSERT_EQ(servable_->Enqueue(&request, &status), Servable::Admitted::kYes) << status.message();
          servable_->Wake(i % 2 == 0 ? MayRun::kYes : MayRun::kNo);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& [ticket, answers] : sink_.Await(kCallers * kSequences * kRequests)) {
    ASSERT_EQ(answers.size(), 1u);
    ASSERT_THAT(answers[0].y, ElementsAre(static_cast<float>(11 + ticket % kRequests)));
  }
  EXPECT_EQ(servable_->pending(), 0);
}

}  // namespace
}  // namespace gristmill
