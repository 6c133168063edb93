// SPDX-License-Identifier: Apache-2.0
// Models that answer each request by itself, and those that answer it any number of times.
#include "engine/request_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <list>
#include <thread>

#include "batching/adaptive_batch_policy.h"
#include "core/fake_clock.h"
#include "engine/fakes.h"
#include "engine/model_call_sink.h"

namespace gristmill {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

/// What the model does is in the test's hands.
class ScriptedModel final : public BackendModel {
 public:
  using Script = std::function<Status(const Batch&, BatchResult*)>;
  Script script;

  const ModelSignature& signature() const override { return signature_; }
  Status CreateInstance(const ModelConfig&, std::unique_ptr<BackendInstance>* instance) override {
    *instance = std::make_unique<Instance>(this);
    return Status::Ok();
  }

 private:
  class Instance final : public BackendInstance {
   public:
    explicit Instance(ScriptedModel* model) : model_(*model) {}
    Status Execute(const Batch& batch, BatchResult* result) override { return model_.script(batch, result); }

   private:
    ScriptedModel& model_;
  };

  const ModelSignature signature_{};
};

/// Remembers, by ticket, the answers and the end of each request.
class StreamSink final : public ResponseSink {
 public:
  struct Heard {
    std::vector<float> answers;
    std::vector<Status> ends;
  };

  void Complete(std::unique_ptr<InferRequest> request, const Status& status, const InferResponse* response) override {
    MutexLock lock(mu_);
    Heard& heard = heard_[request->ticket];
    if (response != nullptr) heard.answers.push_back(AsFloats(response->outputs[0].tensor.data)[0]);
    heard.ends.push_back(status);
    ++ended_;
    changed_.NotifyAll();
  }
  bool Stream(const InferRequest& request, const InferResponse& response) override {
    EXPECT_EQ(response.finality, Finality::kMoreToCome);
    MutexLock lock(mu_);
    if (room_-- <= 0) return false;
    heard_[request.ticket].answers.push_back(AsFloats(response.outputs[0].tensor.data)[0]);
    return true;
  }
  void Flush() override {}

  void set_room(int room) {
    MutexLock lock(mu_);
    room_ = room;
  }
  std::map<uint64_t, Heard> Await(size_t ended) {
    MutexLock lock(mu_);
    while (ended_ < ended) changed_.Wait(mu_);
    return heard_;
  }
  std::map<uint64_t, Heard> heard() {
    MutexLock lock(mu_);
    return heard_;
  }

 private:
  Mutex mu_;
  CondVar changed_;
  size_t ended_ GUARDED_BY(mu_) = 0;
  int room_ GUARDED_BY(mu_) = 1000;
  std::map<uint64_t, Heard> heard_ GUARDED_BY(mu_);
};

class RequestStreamTest : public testing::Test {
 protected:
  void Start(bool decoupled) {
    ModelConfig config = FakeModel::Config();
    config.decoupled = decoupled;
    ASSERT_TRUE(
        BatchedServable::Create({.config = config, .clock = &clock_, .policy = &policy_}, model_, &servable_).ok());
  }

  void TearDown() override {
    streams_.clear();
    servable_.reset();
  }

  /// Null once it has been taken.
  std::unique_ptr<InferRequest> Request(uint64_t ticket, float x, Envelope envelope = Envelope::kStream) {
    values_.push_back({x});
    auto request = MakeRequest(ticket, &sink_, values_.back());
    request->envelope = envelope;
    return request;
  }

  InferRequest* Send(std::unique_ptr<InferRequest> request) {
    InferRequest* const sent = request.get();
    EXPECT_EQ(servable_->Enqueue(&request, &status_), Servable::Admitted::kYes) << status_.message();
    servable_->Wake(MayRun::kNo);
    return sent;
  }

  /// Has Execute keep the streams for the test.
  void KeepStreams() {
    model_->script = [this](const Batch& batch, BatchResult*) {
      MutexLock lock(mu_);
      for (const BatchItem& item : batch.items) streams_.push_back(item.answers);
      changed_.NotifyAll();
      return Status::Ok();
    };
  }
  std::shared_ptr<AnswerStream> TakeStream() {
    MutexLock lock(mu_);
    while (streams_.empty()) changed_.Wait(mu_);
    auto taken = streams_.front();
    streams_.erase(streams_.begin());
    return taken;
  }
  static void Answer(AnswerStream* stream, float y) {
    const std::vector<float> data = {y};
    const std::vector<TensorView> outputs = {{DataType::kFp32, Shape{1, 1}, AsBytes(data)}};
    stream->Send(outputs);
  }

  FakeClock clock_;
  AdaptiveBatchPolicy policy_;
  StreamSink sink_;
  std::shared_ptr<ScriptedModel> model_ = std::make_shared<ScriptedModel>();
  std::list<std::vector<float>> values_;  // keep the requests' bytes
  std::shared_ptr<Servable> servable_;
  Mutex mu_;
  CondVar changed_;
  std::vector<std::shared_ptr<AnswerStream>> streams_;
  Status status_;
};

TEST_F(RequestStreamTest, EachItemHasItsOwnAnswerOrError) {
  const std::vector<float> seven = {7};
  model_->script = [&](const Batch& batch, BatchResult* result) {
    result->items.clear();
    for (const BatchItem& item : batch.items) {
      const float x = AsFloats(item.inputs[0].data)[0];
      ItemAnswer answer{.status = Status::Ok(), .outputs = {{DataType::kFp32, Shape{1, 1}, AsBytes(seven)}}};
      if (x == 1) answer.status = InvalidArgument("not one");
      if (x == 2) answer.outputs[0] = {};
      result->items.push_back(answer);
    }
    return Status::Ok();
  };
  Start(false);
  for (const int ticket : {0, 1, 2, 3}) Send(Request(static_cast<uint64_t>(ticket), static_cast<float>(ticket)));
  const auto heard = sink_.Await(4);
  EXPECT_THAT(heard.at(0).answers, ElementsAre(7));
  EXPECT_EQ(heard.at(1).ends[0].message(), "not one");
  EXPECT_THAT(heard.at(2).ends[0].message(), HasSubstr("has given no output 'y'"));
  EXPECT_THAT(heard.at(3).answers, ElementsAre(7));
  servable_->Drain();
  EXPECT_EQ(servable_->statistics().fail.count, 2u);
  EXPECT_EQ(servable_->statistics().success.count, 2u);
}

TEST_F(RequestStreamTest, AnswersComeWhenTheModelGivesThemAndTheEndOnce) {
  KeepStreams();
  Start(true);
  Send(Request(5, 0));
  const auto stream = TakeStream();
  for (const float y : {1.f, 2.f, 3.f}) Answer(stream.get(), y);
  EXPECT_THAT(sink_.heard()[5].answers, ElementsAre(1, 2, 3));
  EXPECT_THAT(sink_.heard()[5].ends, IsEmpty());
  EXPECT_EQ(servable_->pending(), 1);
  stream->End(Status::Ok());
  stream->End(Internal("again"));
  Answer(stream.get(), 4);
  const auto heard = sink_.Await(1).at(5);
  EXPECT_EQ(heard.ends.size(), 1u);
  EXPECT_TRUE(heard.ends[0].ok());
  EXPECT_THAT(heard.answers, ElementsAre(1, 2, 3));
  EXPECT_EQ(servable_->pending(), 0);
  EXPECT_EQ(servable_->statistics().success.count, 1u);
}

TEST_F(RequestStreamTest, DrainWaitsForTheLastAnswer) {
  KeepStreams();
  Start(true);
  Send(Request(1, 0));
  const auto stream = TakeStream();
  std::thread draining([&] { servable_->Drain(); });
  std::unique_ptr<InferRequest> late;
  do {  // until it is closed
    late = Request(2, 0);
    if (servable_->Enqueue(&late, &status_) == Servable::Admitted::kYes) {
      servable_->Wake(MayRun::kNo);
      TakeStream()->End(Status::Ok());
    }
  } while (late == nullptr);
  Answer(stream.get(), 1);
  EXPECT_THAT(sink_.heard()[1].answers, ElementsAre(1));
  stream->End(Status::Ok());
  draining.join();
}

TEST_F(RequestStreamTest, AStreamThatIsLetGoOfHasFailed) {
  KeepStreams();
  Start(true);
  Send(Request(1, 0));
  TakeStream().reset();
  EXPECT_THAT(sink_.Await(1).at(1).ends[0].message(), HasSubstr("ended before it had answered"));
}

TEST_F(RequestStreamTest, AFailedExecuteEndsAllStreams) {
  model_->script = [](const Batch&, BatchResult*) { return Internal("no"); };
  Start(true);
  Send(Request(1, 0));
  EXPECT_EQ(sink_.Await(1).at(1).ends[0].message(), "no");
}

TEST_F(RequestStreamTest, ACallerThatGoesIsToldToTheModel) {
  KeepStreams();
  Start(true);
  InferRequest* const sent = Send(Request(1, 0));
  const auto stream = TakeStream();
  EXPECT_FALSE(stream->is_cancelled());
  sent->cancelled = true;
  EXPECT_TRUE(stream->is_cancelled());
  Answer(stream.get(), 1);
  stream->End(Status::Ok());
  const auto heard = sink_.Await(1).at(1);
  EXPECT_THAT(heard.answers, IsEmpty());
  EXPECT_EQ(heard.ends[0].code(), StatusCode::kCancelled);
}

TEST_F(RequestStreamTest, AnswersThatFindNoRoomAreNotLostInSilence) {
  KeepStreams();
  Start(true);
  sink_.set_room(1);
  Send(Request(1, 0));
  const auto stream = TakeStream();
  for (const float y : {1.f, 2.f, 3.f}) Answer(stream.get(), y);
  EXPECT_TRUE(stream->is_cancelled());
  stream->End(Status::Ok());
  const auto heard = sink_.Await(1).at(1);
  EXPECT_THAT(heard.answers, ElementsAre(1));
  EXPECT_EQ(heard.ends[0].code(), StatusCode::kResourceExhausted);
}

TEST_F(RequestStreamTest, ACallOfOneAnswerIsRefused) {
  Start(true);
  auto request = Request(1, 0, Envelope::kNone);
  EXPECT_EQ(servable_->Enqueue(&request, &status_), Servable::Admitted::kRefused);
  EXPECT_EQ(status_.code(), StatusCode::kUnimplemented);
}

TEST_F(RequestStreamTest, AModelThatWaitsForTheAnswerIsNotAsked) {
  Start(false);
  auto request = Request(1, 0);
  request->waiting_models = std::make_shared<WaitingModels>(WaitingModels{"other", "fake"});
  EXPECT_EQ(servable_->Enqueue(&request, &status_), Servable::Admitted::kRefused);
  EXPECT_EQ(status_.code(), StatusCode::kFailedPrecondition);
}

TEST(ModelCallSink, ARequestCarriesItsCallToTheEnd) {
  ModelCallSink sink;
  const std::vector<float> x = {4};
  ModelCall call{.model = "m", .version = "2", .id = "id"};
  call.inputs.push_back({.name = "x", .tensor = {DataType::kFp32, Shape{1}, AsBytes(x)}});
  call.outputs = {"y", "z"};
  call.sequence = {.number = 0, .start = true};
  call.sequence_name = "s";
  int done = 0;
  auto request = ModelCallSink::MakeRequest(
      std::move(call),
      [&](const Status& status, const InferResponse*) {
        EXPECT_EQ(status.message(), "gone");
        ++done;
      },
      &sink);
  EXPECT_EQ(request->model_name, "m");
  EXPECT_EQ(request->inputs[0].name, "x");
  EXPECT_THAT(request->requested_outputs, ElementsAre("y", "z"));
  EXPECT_EQ(request->sequence.name, "s");
  EXPECT_TRUE(request->sequence.start);
  sink.Complete(std::move(request), NotFound("gone"), nullptr);
  EXPECT_EQ(done, 1);
}

}  // namespace
}  // namespace gristmill
