// SPDX-License-Identifier: Apache-2.0
// A server on a port of its own with a handler for tests.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "transport/server.h"

namespace gristmill {

/// What happened to calls, over all loops.
struct Log {
  std::atomic<int> cancelled{0};
  std::atomic<int> held{0};
  std::atomic<int> held_messages{0};
  std::atomic<int> metadata_entries{-1};
  std::mutex mu;
  std::multimap<std::string, std::string> auth;  // of the last call
};

/// /t/Echo answers with its messages, each as it comes; /t/Fail with a status; /t/Hold never, until it is cancelled,
/// and keeps its messages until then; /t/Large answers with a message of as many bytes as its request says.
class TestHandler final : public CallHandler {
 public:
  TestHandler(Log* log, BufferPool* buffers) : log_(*log), buffers_(*buffers) {}

  bool wants_metadata() const override { return true; }
  void OnCall(Call* call) override {
    log_.metadata_entries = static_cast<int>(call->metadata().size());
    {
      const std::lock_guard lock(log_.mu);
      log_.auth = {call->auth().begin(), call->auth().end()};
    }
    if (call->path() == "/t/Hold") ++log_.held;
    if (call->path() == "/t/Unknown") call->Finish(Unimplemented("Method not found!"), {});
  }
  void OnMessage(Call* call, Buffer message) override {
    if (call->path() == "/t/Echo") call->SendMessage(std::move(message));
    if (call->path() == "/t/Hold") {
      held_[call].push_back(std::move(message));
      ++log_.held_messages;
    }
    if (call->path() == "/t/Large") {
      const size_t size = std::stoul(std::string(reinterpret_cast<const char*>(message.data()), message.size()));
      Buffer large = buffers_.Acquire(size);
      std::fill_n(large.data(), size, std::byte{'L'});
      call->SendMessage(std::move(large));
    }
  }
  void OnHalfClose(Call* call) override {
    if (call->path() == "/t/Hold") return;
    if (call->path() == "/t/Fail") {
      return call->Finish(InvalidArgument("expected 1 %,\ngot \xc3\xa9"),
                          {{"why", "because"}, {"raw-bin", "\x01\xff"}});
    }
    call->Finish(Status::Ok(), {});
  }
  void OnSent(Call*) override {}
  void OnCancel(Call* call) override {
    held_.erase(call);
    ++log_.cancelled;
    call->Finish(Cancelled(""), {});
  }

 private:
  Log& log_;
  BufferPool& buffers_;
  std::map<Call*, std::vector<Buffer>> held_;
};

class TestHandlers final : public LoopHandlers {
 public:
  TestHandlers(Log* log, BufferPool* buffers) : handler_(log, buffers) {}
  CallHandler* Find(std::string_view) override { return &handler_; }
  void OnTurnEnd() override {}

 private:
  TestHandler handler_;
};

class ServerTest : public testing::Test {
 protected:
  Log log_;
  BufferPool buffers_{{}};
  std::unique_ptr<TransportServer> server_;
  int port_ = 0;

  /// `tls`: null is plain text.
  void Start(ServerOptions options = {}, std::shared_ptr<const TlsContext> tls = nullptr) {
    server_ = std::make_unique<TransportServer>(
        options, &SystemClock(), [this](EventLoop*) { return std::make_unique<TestHandlers>(&log_, &buffers_); });
    ASSERT_TRUE(server_->Open().ok());
    const Status status = server_->Listen("127.0.0.1:0", &port_, std::move(tls));
    ASSERT_TRUE(status.ok()) << status.message();
    server_->Start();
  }

  static void AwaitTrue(const std::function<bool()>& condition) {
    while (!condition()) std::this_thread::yield();
  }
};

}  // namespace gristmill
