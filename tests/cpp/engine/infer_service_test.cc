// SPDX-License-Identifier: Apache-2.0
// ModelInfer and ModelStreamInfer over real connections, from several clients to several loops and executors.
#include "engine/infer_service.h"
#include "engine/stream_infer_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "engine/fakes.h"
#include "protocol/one_row_request.h"
#include "transport/grpc_frames.h"
#include "transport/http2_client.h"
#include "transport/server.h"

namespace gristmill {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class Handlers final : public LoopHandlers {
 public:
  Handlers(Engine* engine, EventLoop* loop) : infer_(engine, loop), stream_infer_(engine, loop) {
    EXPECT_TRUE(infer_.Open().ok());
    EXPECT_TRUE(stream_infer_.Open().ok());
  }
  CallHandler* Find(std::string_view path) override {
    return path == "/stream" ? static_cast<CallHandler*>(&stream_infer_) : &infer_;
  }
  void OnTurnEnd() override {
    infer_.Submit();
    stream_infer_.Submit();
  }

 private:
  InferService infer_;
  StreamInferService stream_infer_;
};

class InferServiceTest : public testing::Test {
 protected:
  std::shared_ptr<FakeModel> model_ = std::make_shared<FakeModel>(&SystemClock());
  Engine engine_{{}, &SystemClock()};
  std::shared_ptr<Servable> servable_;
  TransportServer server_{{.io_threads = 2}, &SystemClock(), [this](EventLoop* loop) {
                            return std::make_unique<Handlers>(&engine_, loop);
                          }};
  int port_ = 0;

  void SetUp() override {
    ModelConfig config = FakeModel::Config();
    config.instance_count = 2;
    Serve(config);
    ASSERT_TRUE(server_.Open().ok());
    ASSERT_TRUE(server_.Listen("127.0.0.1:0", &port_).ok());
    server_.Start();
  }

  void TearDown() override {
    model_->Open();
    server_.Stop();
  }

  void Serve(const ModelConfig& config) {
    ASSERT_TRUE(engine_.Load(model_, config, &servable_).ok());
    ModelEntry entry;
    entry.versions[config.version] = servable_;
    engine_.Publish("fake", std::move(entry));
  }

  static std::string Request(float x) { return GrpcFrame(OneRowRequest("fake", "x", x)); }

  /// The one float of an answer whose last field is its raw contents.
  static float Answered(const Reply& reply) {
    float y = 0;
    if (reply.body.size() >= sizeof y) std::memcpy(&y, reply.body.data() + reply.body.size() - sizeof y, sizeof y);
    return y;
  }
};

TEST_F(InferServiceTest, GivesEveryClientItsOwnAnswers) {
  model_->Open();
  std::vector<std::thread> clients;
  std::atomic<int> right{0};
  for (int number = 0; number < 4; ++number) {
    clients.emplace_back([&, number] {
      Http2Client client(port_);
      for (int round = 0; round < 20; ++round) {
        std::map<int32_t, float> sent;
        for (int i = 0; i < 10; ++i) {
          const auto x = static_cast<float>(number * 1000 + round * 10 + i);
          sent[client.Begin(GrpcHeaders("/infer"), Request(x))] = x;
        }
        for (const auto& [id, x] : sent) {
          const Reply reply = client.Await(id);
          right += reply.status() == "0" && Answered(reply) == x + 1;
        }
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(right, 800);
}

/// The messages of a reply, without gRPC's frames.
std::vector<std::string> Messages(const std::string& body) {
  std::vector<std::string> messages;
  for (size_t at = 0; at + 5 <= body.size();) {
    size_t size = 0;
    for (size_t i = 1; i < 5; ++i) size = size << 8 | static_cast<uint8_t>(body[at + i]);
    messages.push_back(body.substr(at + 5, size));
    at += 5 + size;
  }
  return messages;
}

TEST_F(InferServiceTest, GivesEveryStreamItsOwnAnswersInOrder) {
  model_->Open();
  std::vector<std::thread> clients;
  std::atomic<int> right{0};
  for (int number = 0; number < 4; ++number) {
    clients.emplace_back([&, number] {
      Http2Client client(port_);
      for (int round = 0; round < 10; ++round) {
        std::map<int32_t, float> first;
        for (int i = 0; i < 3; ++i) {
          const auto x = static_cast<float>(number * 1000 + round * 100 + i * 30);
          std::string requests;
          for (int turn = 0; turn < 20; ++turn) requests += Request(x + static_cast<float>(turn));
          first[client.Begin(GrpcHeaders("/stream"), requests)] = x;
        }
        for (const auto& [id, x] : first) {
          const Reply reply = client.Await(id);
          const auto messages = Messages(reply.body);
          bool is_right = reply.status() == "0" && messages.size() == 20;
          for (size_t turn = 0; is_right && turn < messages.size(); ++turn) {
            float y = 0;
            std::memcpy(&y, messages[turn].data() + messages[turn].size() - sizeof y, sizeof y);
            is_right = y == x + static_cast<float>(turn) + 1;
          }
          right += is_right;
        }
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(right, 120);
}

TEST_F(InferServiceTest, TellsAnErrorInItsPlaceOfTheStream) {
  model_->Open();
  Http2Client client(port_);
  const Reply reply = client.Call(GrpcHeaders("/stream"), Request(1) + Request(-1) + GrpcFrame("\xff") + Request(2));
  EXPECT_EQ(reply.status(), "0");
  const auto messages = Messages(reply.body);
  ASSERT_EQ(messages.size(), 4u);
  EXPECT_THAT(messages[1], HasSubstr("x must not be negative"));
  EXPECT_EQ(messages[2][0], '\x0a');  // an error_message
  EXPECT_EQ(messages[3][0], '\x12');  // an infer_response
  const Reply ended = client.Call(GrpcHeaders("/stream", {{"triton_grpc_error", "true"}}), Request(-1) + Request(2));
  EXPECT_EQ(ended.status(), "13");
  EXPECT_EQ(client.Call(GrpcHeaders("/stream"), "").status(), "0");
}

TEST_F(InferServiceTest, AStreamThatIsGivenUpLeavesTheQueue) {
  {
    Http2Client client(port_);
    std::string requests;
    for (int turn = 0; turn < 20; ++turn) requests += Request(1);
    client.Begin(GrpcHeaders("/stream"), requests);
    model_->AwaitRuns(2);
  }
  while (servable_->pending() > 16) std::this_thread::yield();  // what does not run, at most 8 rows in each of two runs
  model_->Open();
  Http2Client client(port_);
  EXPECT_EQ(Answered(client.Call(GrpcHeaders("/infer"), Request(1))), 2);
}

TEST_F(InferServiceTest, AnswersErrorsAndServesOn) {
  model_->Open();
  Http2Client client(port_);
  EXPECT_EQ(client.Call(GrpcHeaders("/infer"), Request(-1)).status(), "13");
  EXPECT_EQ(client.Call(GrpcHeaders("/infer"), GrpcFrame("\xff")).status(), "3");
  EXPECT_EQ(client.Call(GrpcHeaders("/infer"), GrpcFrame(OneRowRequest("nowhere", "x", 1))).status(), "5");
  const Reply none = client.Call(GrpcHeaders("/infer"), "");
  EXPECT_EQ(none.status(), "13");
  EXPECT_THAT(none.headers.at("grpc-message"), HasSubstr("got none"));
  EXPECT_EQ(client.Call(GrpcHeaders("/infer"), Request(1) + Request(2)).status(), "13");
  EXPECT_EQ(Answered(client.Call(GrpcHeaders("/infer"), Request(1))), 2);
}

TEST_F(InferServiceTest, EndsACallAtItsDeadlineWhateverTheModelDoes) {
  Http2Client client(port_);
  const int32_t first = client.Begin(GrpcHeaders("/infer"), Request(1));
  model_->AwaitRuns(1);
  const int32_t second = client.Begin(GrpcHeaders("/infer"), Request(2));
  model_->AwaitRuns(2);
  const int32_t late = client.Begin(GrpcHeaders("/infer", {{"grpc-timeout", "50m"}}), Request(3));
  EXPECT_EQ(client.Await(late).status(), "4");
  EXPECT_EQ(servable_->pending(), 2);  // it has left the queue as well
  model_->Open();
  EXPECT_EQ(Answered(client.Await(first)), 2);
  EXPECT_EQ(Answered(client.Await(second)), 3);
  while (servable_->pending() > 0) std::this_thread::yield();
  EXPECT_EQ(server_.calls(), 0u);
}

TEST_F(InferServiceTest, ACancelledCallMakesRoomAtOnce) {
  ModelConfig config = FakeModel::Config();
  config.batching.levels[0].max_queue_size = 4;
  Serve(config);
  Http2Client client(port_);
  const int32_t running = client.Begin(GrpcHeaders("/infer"), Request(0));
  model_->AwaitRuns(1);
  std::vector<int32_t> waiting;
  for (int i = 0; i < 4; ++i) waiting.push_back(client.Begin(GrpcHeaders("/infer"), Request(1)));
  EXPECT_EQ(client.Call(GrpcHeaders("/infer"), Request(1)).status(), "8");
  for (int32_t id : waiting) client.Reset(id);
  client.Reset(running);  // which keeps its place
  waiting.clear();
  for (int i = 0; i < 4; ++i) waiting.push_back(client.Begin(GrpcHeaders("/infer"), Request(2)));
  EXPECT_EQ(client.Call(GrpcHeaders("/infer"), Request(2)).status(), "8");
  EXPECT_EQ(servable_->pending(), 5);
  model_->Open();
  for (int32_t id : waiting) EXPECT_EQ(Answered(client.Await(id)), 3);
  while (server_.calls() > 0) std::this_thread::yield();
  EXPECT_THAT(model_->batch_rows(), ElementsAre(1, 4));
}

}  // namespace
}  // namespace gristmill
