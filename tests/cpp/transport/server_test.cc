// SPDX-License-Identifier: Apache-2.0
#include "transport/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <thread>

#include "transport/compression.h"
#include "transport/grpc_frames.h"
#include "transport/http2_client.h"
#include "transport/message_reader.h"
#include "transport/server_fixture.h"

namespace gristmill {
namespace {

using testing::HasSubstr;

TEST_F(ServerTest, AnswersAUnaryCall) {
  Start();
  Http2Client client(port_);
  const Reply reply = client.Call(GrpcHeaders("/t/Echo"), GrpcFrame("hello"));
  EXPECT_EQ(reply.body, GrpcFrame("hello"));
  EXPECT_EQ(reply.status(), "0");
  EXPECT_EQ(reply.headers.at(":status"), "200");
  EXPECT_EQ(reply.headers.at("content-type"), "application/grpc");
  EXPECT_EQ(reply.error, 0u);
}

TEST_F(ServerTest, KeepsCallsOfOneConnectionApart) {
  Start();
  Http2Client client(port_);
  std::map<int32_t, std::string> sent;
  for (int i = 0; i < 200; ++i) {
    const std::string text(static_cast<size_t>(i * 37), static_cast<char>('a' + i % 26));
    sent[client.Begin(GrpcHeaders("/t/Echo"), GrpcFrame(text))] = GrpcFrame(text);
  }
  for (const auto& [id, frame] : sent) EXPECT_EQ(client.Await(id).body, frame);
}

TEST_F(ServerTest, StreamsMessagesAsTheyCome) {
  Start();
  Http2Client client(port_);
  const int32_t id = client.Begin(GrpcHeaders("/t/Echo"), GrpcFrame("one"), /*ends=*/false);
  ASSERT_TRUE(client.ReadUntil([&] { return client.reply(id).body == GrpcFrame("one"); }));
  client.Send(id, GrpcFrame("two") + GrpcFrame("three"), /*ends=*/false);
  ASSERT_TRUE(client.ReadUntil(
      [&] { return client.reply(id).body == GrpcFrame("one") + GrpcFrame("two") + GrpcFrame("three"); }));
  client.Send(id, "", /*ends=*/true);
  EXPECT_EQ(client.Await(id).status(), "0");
}

TEST_F(ServerTest, SendsStatusMessageAndTrailers) {
  Start();
  Http2Client client(port_);
  const Reply reply = client.Call(GrpcHeaders("/t/Fail"), GrpcFrame(""));
  EXPECT_EQ(reply.status(), "3");
  EXPECT_EQ(reply.headers.at("grpc-message"), "expected 1 %25,%0Agot %C3%A9");
  EXPECT_EQ(reply.headers.at("why"), "because");
  EXPECT_EQ(reply.headers.at("raw-bin"), "Af8");
}

TEST_F(ServerTest, SendsAndTakesLargeMessages) {
  Start();
  Http2Client client(port_);
  const Reply large = client.Call(GrpcHeaders("/t/Large"), GrpcFrame("20000000"));
  EXPECT_EQ(large.body.size(), 20'000'005u);
  EXPECT_EQ(large.body.substr(5).find_first_not_of('L'), std::string::npos);
  const std::string text(20'000'000, 'x');
  EXPECT_TRUE(client.Call(GrpcHeaders("/t/Echo"), GrpcFrame(text)).body == GrpcFrame(text));
}

TEST_F(ServerTest, GrowsTheWindowOfALargeMessage) {
  Start();
  Http2Client client(port_);
  const std::string frame = GrpcFrame(std::string(10'000'000, 'x'));
  const int32_t id = client.Begin(GrpcHeaders("/t/Echo"), frame.substr(0, 10), /*ends=*/false);
  ASSERT_TRUE(client.ReadUntil([&] { return client.WindowOf(id) > 9'000'000; }));
  client.Send(id, frame.substr(10), /*ends=*/true);
  EXPECT_TRUE(client.Await(id).body == frame);
}

TEST_F(ServerTest, CompressesAnswersForThoseWhoCanUndoIt) {
  Start({.transport = {.response_encoding = Encoding::kGzip}});
  Http2Client client(port_);
  const std::string text(10'000, 'x');
  const auto ask = [&](const char* accepted, const std::string& message) {
    return client.Call(GrpcHeaders("/t/Echo", {{"grpc-accept-encoding", accepted}}), GrpcFrame(message));
  };
  const Reply compressed = ask("identity, gzip", text);
  EXPECT_EQ(compressed.headers.at("grpc-encoding"), "gzip");
  EXPECT_EQ(compressed.body[0], '\1');
  EXPECT_LT(compressed.body.size(), 100u);
  Buffer message;
  const auto bytes = std::as_bytes(std::span(compressed.body)).subspan(kMessagePrefixBytes);
  ASSERT_TRUE(Decompress(Encoding::kGzip, bytes, 0, &buffers_, &message).ok());
  EXPECT_TRUE(std::ranges::equal(message.view(), std::as_bytes(std::span(text))));

  const Reply incompressible = ask("gzip", "ab");
  EXPECT_EQ(incompressible.headers.at("grpc-encoding"), "gzip");
  EXPECT_EQ(incompressible.body, GrpcFrame("ab"));
  for (const char* accepted : {"deflate", "identity", "br,zstd", ""}) {
    const Reply plain = ask(accepted, text);
    EXPECT_EQ(plain.body, GrpcFrame(text)) << accepted;
    EXPECT_FALSE(plain.headers.contains("grpc-encoding")) << accepted;
  }
}

TEST_F(ServerTest, RefusesWhatIsNoGrpc) {
  Start();
  Http2Client client(port_);
  HeaderList get = GrpcHeaders("/t/Echo");
  get[0].second = "GET";
  EXPECT_EQ(client.Call(get, "").headers.at(":status"), "405");
  HeaderList json = GrpcHeaders("/t/Echo");
  json[4].second = "application/json";
  EXPECT_EQ(client.Call(json, "{}").headers.at(":status"), "415");
  EXPECT_EQ(client.Call(GrpcHeaders("/t/Echo", {{"grpc-timeout", "soon"}}), GrpcFrame("")).status(), "13");
  EXPECT_EQ(client.Call(GrpcHeaders("/t/Echo", {{"grpc-encoding", "snappy"}}), GrpcFrame("")).status(), "12");
  EXPECT_EQ(client.Call(GrpcHeaders("/t/Echo", {{"x-bin", "!"}}), GrpcFrame("")).status(), "13");
  EXPECT_EQ(client.Call(GrpcHeaders("/t/Echo", {{"x", std::string(20'000, 'x')}}), GrpcFrame("")).status(), "8");
  HeaderList metadata_first = GrpcHeaders("/t/Echo");
  metadata_first.insert(metadata_first.begin() + 4, {"x", std::string(20'000, 'x')});
  EXPECT_EQ(client.Call(metadata_first, GrpcFrame("")).status(), "8");
  EXPECT_EQ(client.Call(GrpcHeaders("/t/Unknown"), GrpcFrame("")).status(), "12");
  EXPECT_EQ(client.Call(GrpcHeaders("/t/Echo"), GrpcFrame("whole") + std::string(3, '\0')).status(), "13");
  EXPECT_EQ(client.Call(GrpcHeaders("/t/Echo"), "\7" + GrpcFrame("x").substr(1)).status(), "13");
  EXPECT_EQ(client.Call(GrpcHeaders("/t/Echo"), GrpcFrame("still served")).status(), "0");
}

TEST_F(ServerTest, HandsOnMetadataWithoutWhatBelongsToGrpc) {
  Start();
  Http2Client client(port_);
  const HeaderList metadata = {{"user-agent", "test"}, {"a-bin", "Af8,Zg"}, {"a-blank", " a "}, {"grpc-timeout", "9S"}};
  EXPECT_EQ(client.Call(GrpcHeaders("/t/Echo", metadata), GrpcFrame("")).status(), "0");
  EXPECT_EQ(log_.metadata_entries, 4);
}

TEST_F(ServerTest, TellsTheHandlerOfAReset) {
  Start();
  Http2Client client(port_);
  const int32_t id = client.Begin(GrpcHeaders("/t/Hold"), GrpcFrame("x"));
  AwaitTrue([&] { return log_.held == 1; });
  client.Reset(id);
  AwaitTrue([&] { return log_.cancelled == 1; });
  EXPECT_EQ(client.Call(GrpcHeaders("/t/Echo"), GrpcFrame("y")).status(), "0");
  EXPECT_EQ(server_->calls(), 0u);
}

TEST_F(ServerTest, TellsTheHandlerThatTheClientHasGone) {
  Start();
  {
    Http2Client client(port_);
    client.Begin(GrpcHeaders("/t/Hold"), GrpcFrame("x"));
    client.Begin(GrpcHeaders("/t/Hold"), "", /*ends=*/false);
    AwaitTrue([&] { return log_.held == 2; });
  }
  AwaitTrue([&] { return log_.cancelled == 2 && server_->connections() == 0; });
}

TEST_F(ServerTest, EndsACallAtItsDeadline) {
  Start();
  Http2Client client(port_);
  const Reply reply = client.Call(GrpcHeaders("/t/Hold", {{"grpc-timeout", "20m"}}), GrpcFrame("x"));
  EXPECT_EQ(reply.status(), "4");
  EXPECT_EQ(log_.cancelled, 1);
}

constexpr int64_t kMs = 1'000'000;

TEST_F(ServerTest, LetsGoOfAClientThatDoesNotAnswerPings) {
  Start({.transport = {.keepalive_time_ns = 10 * kMs, .keepalive_timeout_ns = 10 * kMs}});
  Http2Client silent(port_);
  silent.Begin(GrpcHeaders("/t/Hold"), GrpcFrame("x"));  // and reads nothing from now on
  AwaitTrue([&] { return log_.held == 1; });
  AwaitTrue([&] { return server_->connections() == 0 && log_.cancelled == 1; });
}

TEST_F(ServerTest, KeepsAClientThatAnswersPings) {
  Start({.transport = {.keepalive_time_ns = 5 * kMs, .keepalive_timeout_ns = 5'000 * kMs}});
  Http2Client client(port_);
  const int32_t id = client.Begin(GrpcHeaders("/t/Hold", {{"grpc-timeout", "100m"}}), GrpcFrame("x"));
  EXPECT_EQ(client.Await(id).status(), "4");  // some pings later
  EXPECT_EQ(client.Call(GrpcHeaders("/t/Echo"), GrpcFrame("x")).status(), "0");
}

TEST_F(ServerTest, TellsAnIdleConnectionToGoButNoneWithACall) {
  Start({.transport = {.max_idle_ns = 300 * kMs}});
  Http2Client client(port_);
  const int32_t id = client.Begin(GrpcHeaders("/t/Hold", {{"grpc-timeout", "700m"}}), GrpcFrame("x"));
  EXPECT_EQ(client.Await(id).status(), "4");
  EXPECT_FALSE(client.has_goaway());
  EXPECT_FALSE(client.ReadUntil([] { return false; }));
  EXPECT_TRUE(client.has_goaway());
  EXPECT_EQ(client.goaway_error(), 0u);
}

TEST_F(ServerTest, EndsAConnectionOfAgeAfterItsGrace) {
  Start({.transport = {.max_age_ns = 300 * kMs, .max_age_grace_ns = 500 * kMs}});
  Http2Client client(port_);
  client.Begin(GrpcHeaders("/t/Hold"), GrpcFrame("x"));
  EXPECT_TRUE(client.ReadUntil([&] { return client.has_goaway(); }));
  EXPECT_EQ(log_.cancelled, 0);
  EXPECT_FALSE(client.ReadUntil([] { return false; }));
  AwaitTrue([&] { return log_.cancelled == 1; });
}

TEST_F(ServerTest, AgeDoesNotCutADrainShort) {
  Start({.transport = {.max_age_ns = 300 * kMs, .max_age_grace_ns = 60'000 * kMs}});
  Http2Client client(port_);
  const int32_t id = client.Begin(GrpcHeaders("/t/Hold", {{"grpc-timeout", "900m"}}), GrpcFrame("x"));
  AwaitTrue([&] { return log_.held == 1; });
  server_->Drain();  // before the connection is of age
  EXPECT_EQ(client.Await(id).status(), "4");
}

TEST_F(ServerTest, DrainsByGoawayAndLetsCallsFinish) {
  Start();
  Http2Client client(port_);
  const int32_t id = client.Begin(GrpcHeaders("/t/Echo"), GrpcFrame("one"), /*ends=*/false);
  ASSERT_TRUE(client.ReadUntil([&] { return client.reply(id).body == GrpcFrame("one"); }));
  server_->Drain();
  ASSERT_TRUE(client.ReadUntil([&] { return client.has_goaway(); }));
  EXPECT_EQ(client.goaway_error(), 0u);
  client.Send(id, GrpcFrame("two"), /*ends=*/true);
  EXPECT_EQ(client.Await(id).status(), "0");
  EXPECT_FALSE(client.ReadUntil([] { return false; }));  // and then the connection ends
  AwaitTrue([&] { return server_->connections() == 0; });
  EXPECT_THROW(Http2Client{port_}, std::runtime_error);
}

TEST_F(ServerTest, ServesManyConnectionsOnSeveralLoops) {
  Start({.io_threads = 3});
  std::vector<std::thread> threads;
  std::atomic<int> answered{0};
  for (int t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round < 5; ++round) {
        Http2Client client(port_);
        std::map<int32_t, std::string> sent;
        for (int i = 0; i < 20; ++i) {
          const std::string text = std::to_string(t) + "-" + std::to_string(round) + "-" + std::to_string(i);
          sent[client.Begin(GrpcHeaders("/t/Echo"), GrpcFrame(text))] = GrpcFrame(text);
        }
        for (const auto& [id, frame] : sent) answered += client.Await(id).body == frame;
        client.Begin(GrpcHeaders("/t/Hold"), "", /*ends=*/false);  // and goes away
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(answered, 600);
  AwaitTrue([&] { return server_->connections() == 0 && server_->calls() == 0; });
}

TEST_F(ServerTest, ListensOnUnixSocketsAndSaysWhyItCannot) {
  Start();
  int port = 0;
  TransportServer other({}, &SystemClock(),
                        [this](EventLoop*) { return std::make_unique<TestHandlers>(&log_, &buffers_); });
  ASSERT_TRUE(other.Open().ok());
  EXPECT_TRUE(other.Listen("unix:" + testing::TempDir() + "/gristmill_transport_test", &port).ok());
  EXPECT_TRUE(other.Listen("[::1]:0", &port).ok());
  EXPECT_NE(port, 0);
  EXPECT_THAT(other.Listen("127.0.0.1:" + std::to_string(port_), &port).message(), HasSubstr("in use"));
  EXPECT_THAT(other.Listen("nonsense", &port).message(), HasSubstr("expected host:port"));
}

TEST_F(ServerTest, StopsWithCallsOpen) {
  Start({.io_threads = 2});
  Http2Client client(port_);
  client.Begin(GrpcHeaders("/t/Hold"), GrpcFrame("x"));
  AwaitTrue([&] { return log_.held == 1; });
  server_->Stop();
  EXPECT_EQ(log_.cancelled, 1);
}

}  // namespace
}  // namespace gristmill
