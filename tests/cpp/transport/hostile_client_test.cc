// SPDX-License-Identifier: Apache-2.0
// What clients do that mean harm or are broken: their connection pays for it, memory stays bounded, and all others are
// served.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "transport/grpc_frames.h"
#include "transport/http2_client.h"
#include "transport/server_fixture.h"

namespace gristmill {
namespace {

using testing::HasSubstr;

constexpr int64_t kMs = 1'000'000;
constexpr size_t kMiB = 1 << 20;

class HostileClientTest : public ServerTest {
 protected:
  /// Whether somebody else is still answered.
  bool OthersAreServed() {
    Http2Client other(port_);
    return other.Call(GrpcHeaders("/t/Echo"), GrpcFrame("x")).status() == "0";
  }

  static std::string Frame(size_t size, uint8_t type, uint8_t flags, uint32_t stream, const std::string& payload) {
    std::string frame;
    for (int shift = 16; shift >= 0; shift -= 8) frame += static_cast<char>(size >> shift);
    frame += static_cast<char>(type);
    frame += static_cast<char>(flags);
    for (int shift = 24; shift >= 0; shift -= 8) frame += static_cast<char>(stream >> shift);
    return frame + payload;
  }
  static constexpr uint8_t kHeaders = 1, kContinuation = 9, kEndHeaders = 4;

  static std::string Ping() { return Frame(8, 6, 0, 0, "12345678"); }
  static std::string Settings() { return Frame(0, 4, 0, 0, ""); }
};

TEST_F(HostileClientTest, ClosesConnectionsThatBreakHttp2) {
  Start();
  Http2Client good(port_);
  for (const std::string& damage :
       {std::string("GET / HTTP/1.1\r\n\r\n"), std::string(9, '\xff'), std::string("\0\0\0\x05\0\0\0\0\x01", 9)}) {
    Http2Client bad(port_);
    bad.SendRaw(damage);
    EXPECT_FALSE(bad.ReadUntil([] { return false; }));
    EXPECT_EQ(good.Call(GrpcHeaders("/t/Echo"), GrpcFrame("x")).status(), "0");
  }
}

TEST_F(HostileClientTest, EndsTheConnectionOfAClientThatOnlyResets) {
  Start();
  Http2Client good(port_);
  Http2Client bad(port_);
  bool ended = false;
  for (int i = 0; i < 100'000 && !ended; ++i) {
    bad.Reset(bad.Begin(GrpcHeaders("/t/Hold"), "", /*ends=*/false));
    if (i % 1'000 == 0) ended = good.Call(GrpcHeaders("/t/Echo"), GrpcFrame("x")).status() != "0";
    if (server_->connections() == 1) break;
  }
  EXPECT_FALSE(ended);
  AwaitTrue([&] { return server_->connections() == 1 && server_->calls() == 0; });
  EXPECT_EQ(good.Call(GrpcHeaders("/t/Echo"), GrpcFrame("x")).status(), "0");
}

TEST_F(HostileClientTest, EndsTheConnectionOfAClientThatFloodsWithPingsOrSettings) {
  Start();
  for (const std::string& frame : {Ping(), Settings()}) {
    Http2Client bad(port_);
    std::string flood;
    for (int i = 0; i < 10'000; ++i) flood += frame;
    // Answers are never read, so they pile up at the server until it has had enough.
    std::thread sender([&] {
      for (int i = 0; i < 500 && server_->connections() > 0; ++i) bad.SendRaw(flood);
    });
    AwaitTrue([&] { return server_->connections() == 0; });
    sender.join();
  }
}

TEST_F(HostileClientTest, EndsTheConnectionOfAClientThatPingsTooOften) {
  Start();
  Http2Client client(port_);
  EXPECT_EQ(client.Call(GrpcHeaders("/t/Echo"), GrpcFrame("x")).status(), "0");
  for (int i = 0; i < 5; ++i) client.SendRaw(Ping());
  EXPECT_FALSE(client.ReadUntil([] { return false; }));
  EXPECT_EQ(client.goaway_error(), static_cast<uint32_t>(NGHTTP2_ENHANCE_YOUR_CALM));
}

TEST_F(HostileClientTest, HoldsToTheLimitOfMessages) {
  Start({.transport = {.max_message_bytes = 100}});
  Http2Client client(port_);
  EXPECT_EQ(client.Call(GrpcHeaders("/t/Echo"), GrpcFrame(std::string(100, 'x'))).status(), "0");
  EXPECT_EQ(client.Call(GrpcHeaders("/t/Echo"), GrpcFrame(std::string(101, 'x'))).status(), "8");
  EXPECT_EQ(client.Call(GrpcHeaders("/t/Large"), GrpcFrame("100")).body.size(), 105u);
  const Reply large = client.Call(GrpcHeaders("/t/Large"), GrpcFrame("101"));
  EXPECT_EQ(large.status(), "8");
  EXPECT_EQ(large.headers.at("grpc-message"), "sent message larger than max (101 vs. 100)");
  EXPECT_EQ(log_.cancelled, 2);  // by the request that was too large, and by the answer
}

TEST_F(HostileClientTest, EndsTheConnectionOfAHeaderBomb) {
  Start();
  Http2Client bad(port_);
  // The last header enters HPACK's table; each byte of the next block stands for it.
  EXPECT_EQ(bad.Call(GrpcHeaders("/t/Echo", {{"x", std::string(2'900, 'v')}}), GrpcFrame("x")).status(), "0");
  const std::string bomb(16'000, '\xbe');
  bad.SendRaw(Frame(bomb.size(), kHeaders, kEndHeaders, 3, bomb));
  EXPECT_FALSE(bad.ReadUntil([] { return false; }));
  EXPECT_EQ(bad.goaway_error(), static_cast<uint32_t>(NGHTTP2_ENHANCE_YOUR_CALM));
  EXPECT_TRUE(OthersAreServed());
}

TEST_F(HostileClientTest, EndsTheConnectionOfEndlessContinuations) {
  Start();
  Http2Client bad(port_);
  std::string flood = Frame(1, kHeaders, 0, 1, "\x82");
  for (int i = 0; i < 100; ++i) flood += Frame(1, kContinuation, 0, 1, "\x82");
  bad.SendRaw(flood);
  EXPECT_FALSE(bad.ReadUntil([] { return false; }));
  EXPECT_EQ(bad.goaway_error(), static_cast<uint32_t>(NGHTTP2_ENHANCE_YOUR_CALM));
  EXPECT_TRUE(OthersAreServed());
}

TEST_F(HostileClientTest, ClosesConnectionsThatNeverSpeak) {
  Start({.transport = {.handshake_timeout_ns = 50 * kMs}});
  Http2Client good(port_);
  EXPECT_EQ(good.Call(GrpcHeaders("/t/Echo"), GrpcFrame("x")).status(), "0");
  // The client's preface and SETTINGS wait in it until it is told to do something.
  Http2Client silent(port_);
  AwaitTrue([&] { return server_->connections() == 2; });
  AwaitTrue([&] { return server_->connections() == 1; });
  EXPECT_EQ(good.Call(GrpcHeaders("/t/Echo"), GrpcFrame("x")).status(), "0");
}

TEST_F(HostileClientTest, RefusesBodiesThatAreNotAsLongAsTheySay) {
  Start();
  Http2Client client(port_);
  for (const char* length : {"7", "9999"}) {
    const Reply reply = client.Call(GrpcHeaders("/t/Echo", {{"content-length", length}}), GrpcFrame("four"));
    EXPECT_EQ(reply.error, static_cast<uint32_t>(NGHTTP2_PROTOCOL_ERROR)) << length;
  }
  EXPECT_EQ(client.Call(GrpcHeaders("/t/Echo", {{"content-length", "9"}}), GrpcFrame("four")).status(), "0");
  AwaitTrue([&] { return server_->calls() == 0; });
}

TEST_F(HostileClientTest, BoundsWhatAConnectionLeavesUnfinished) {
  Start({.transport = {.max_connection_bytes = 4 * kMiB}});
  Http2Client bad(port_);
  std::vector<int32_t> streams;
  const std::string begun = GrpcFrame(std::string(10 * kMiB, 'x')).substr(0, kMiB);
  for (int i = 0; i < 12; ++i) streams.push_back(bad.Begin(GrpcHeaders("/t/Echo"), begun, /*ends=*/false));
  const Reply refused = bad.Await(streams.back());
  EXPECT_EQ(refused.status(), "8");
  EXPECT_THAT(refused.headers.at("grpc-message"), HasSubstr("expected at most 4194304"));
  EXPECT_TRUE(OthersAreServed());
  // Those that fit go on.
  bad.Send(streams.front(), GrpcFrame(std::string(10 * kMiB, 'x')).substr(kMiB), /*ends=*/true);
}

TEST_F(HostileClientTest, BoundsTheAnswersThatAConnectionDoesNotRead) {
  Start({.transport = {.max_connection_bytes = 4 * kMiB}});
  Http2Client bad(port_, {.window_bytes = 0});
  const int32_t first = bad.Begin(GrpcHeaders("/t/Large"), GrpcFrame("1000000"));
  std::vector<int32_t> rest;
  for (int i = 0; i < 40; ++i) rest.push_back(bad.Begin(GrpcHeaders("/t/Large"), GrpcFrame("1000000")));
  const Reply refused = bad.Await(rest.back());  // a status needs no window
  EXPECT_EQ(refused.status(), "8");
  EXPECT_THAT(refused.headers.at("grpc-message"), HasSubstr("wait to be read"));
  EXPECT_LE(buffers_.in_use_bytes(), 5 * kMiB);
  EXPECT_TRUE(OthersAreServed());
  bad.OpenWindow(first, 2'000'000);
  EXPECT_EQ(bad.Await(first).body.size(), 1'000'005u);  // what was promised comes once it is read
}

TEST_F(HostileClientTest, AnAnswerOverTheBoundAloneIsSent) {
  Start({.transport = {.max_connection_bytes = kMiB}});
  Http2Client client(port_);
  EXPECT_EQ(client.Call(GrpcHeaders("/t/Large"), GrpcFrame("3000000")).body.size(), 3'000'005u);
}

TEST_F(HostileClientTest, BoundsWhatAllConnectionsHoldTogether) {
  Start({.max_received_bytes = 3 * kMiB / 2});
  const std::string message = GrpcFrame(std::string(kMiB / 2, 'x'));
  Http2Client first(port_);
  Http2Client second(port_);
  // After an answer the clients know that they may send half a mebibyte at once.
  for (Http2Client* client : {&first, &second}) {
    EXPECT_EQ(client->Call(GrpcHeaders("/t/Echo"), GrpcFrame("x")).status(), "0");
  }
  const int32_t held = first.Begin(GrpcHeaders("/t/Hold"), message);
  first.Begin(GrpcHeaders("/t/Hold"), message);
  second.Begin(GrpcHeaders("/t/Hold"), message);
  AwaitTrue([&] { return log_.held_messages == 3; });
  const Reply refused = second.Call(GrpcHeaders("/t/Echo"), message);
  EXPECT_EQ(refused.status(), "8");
  EXPECT_THAT(refused.headers.at("grpc-message"), HasSubstr("fill the server's memory"));
  first.Reset(held);
  AwaitTrue([&] { return log_.cancelled == 2; });  // the one that was refused, and the one that has gone
  EXPECT_EQ(second.Call(GrpcHeaders("/t/Echo"), message).status(), "0");
}

TEST_F(HostileClientTest, ServesOthersWhileAClientReadsNothing) {
  Start({.transport = {.max_connection_bytes = 64 * kMiB}});
  Http2Client bad(port_, {.window_bytes = 1U << 30});
  bad.OpenWindow(0, 1 << 30);
  for (int i = 0; i < 40; ++i) bad.Begin(GrpcHeaders("/t/Large"), GrpcFrame("1000000"));  // and never reads its socket
  EXPECT_TRUE(OthersAreServed());
  EXPECT_LE(buffers_.in_use_bytes(), 65 * kMiB);
}

}  // namespace
}  // namespace gristmill
