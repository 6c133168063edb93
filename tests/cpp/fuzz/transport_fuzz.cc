// SPDX-License-Identifier: Apache-2.0
// Any bytes at all on a connection: the transport answers, refuses or closes, tells its handler a story in the right
// order, and is left without connections and calls.
//
// The first byte cuts the rest into pieces as a network might; the others follow HTTP/2's preface.
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <string>

#include "core/fake_clock.h"
#include "transport/connection.h"

namespace {

using namespace gristmill;  // NOLINT

void Check(bool holds) {
  if (!holds) abort();
}

/// Echoes, and holds the transport to the order of events.
class Handler final : public CallHandler {
 public:
  bool wants_metadata() const override { return true; }
  void OnCall(Call* call) override {
    Check(calls_.emplace(call, State{}).second);
    call->SetReading(call->path().size() % 2 == 0);
  }
  void OnMessage(Call* call, Buffer message) override {
    Check(!StateOf(call).half_closed && !StateOf(call).cancelled);
    call->SendMessage(std::move(message));
  }
  void OnHalfClose(Call* call) override {
    Check(!StateOf(call).half_closed && !StateOf(call).cancelled);
    StateOf(call).half_closed = true;
    calls_.erase(call);
    call->Finish(InvalidArgument("over"), {{"a-bin", "b"}});
  }
  void OnSent(Call* call) override { Check(!StateOf(call).cancelled); }
  void OnCancel(Call* call) override {
    Check(!StateOf(call).cancelled);
    calls_.erase(call);
    call->Finish(Cancelled(""), {});
  }
  size_t open() const { return calls_.size(); }

 private:
  struct State {
    bool half_closed = false;
    bool cancelled = false;
  };
  State& StateOf(Call* call) {
    const auto found = calls_.find(call);
    Check(found != calls_.end());
    return found->second;
  }

  std::map<Call*, State> calls_;
};

class Handlers final : public LoopHandlers {
 public:
  CallHandler* Find(std::string_view) override { return &handler; }
  void OnTurnEnd() override {}
  Handler handler;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  FakeClock clock;
  BufferPool buffers({.max_in_use_bytes = 1 << 18});
  Handlers handlers;
  EventLoop loop(&clock);
  Check(loop.Open().ok());
  ConnectionSet connections(&loop, &buffers, &handlers,
                            {.max_message_bytes = 1 << 16,
                             .max_connection_bytes = 1 << 14,
                             .response_encoding = Encoding::kGzip,
                             .max_concurrent_streams = 16,
                             .max_header_bytes = 4096});
  std::array<int, 2> ends{};
  Check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends.data()) == 0);
  connections.Add(std::make_unique<Socket>(ends[0]), "fuzz");
  const std::string input =
      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + std::string(reinterpret_cast<const char*>(data + 1), size - 1);
  const size_t piece = 1 + data[0] * size_t{4};
  size_t sent = 0;
  int idle_turns = 0;
  loop.Stop([&] {  // asked once a turn: the client's side of the conversation
    std::array<char, 4096> answer;
    while (recv(ends[1], answer.data(), answer.size(), 0) > 0) {
    }
    if (sent < input.size()) {
      const ssize_t count = send(ends[1], input.data() + sent, std::min(piece, input.size() - sent), MSG_NOSIGNAL);
      sent = count > 0 ? sent + static_cast<size_t>(count) : input.size();
    } else if (++idle_turns == 3) {
      clock.Advance(100'000'000);
      connections.Drain();
    } else if (idle_turns == 6) {
      connections.CloseAll();
    }
    loop.Post([] {});  // another turn
    return idle_turns > 8;
  });
  loop.Run();
  Check(connections.connections() == 0 && connections.calls() == 0 && handlers.handler.open() == 0);
  close(ends[1]);
  return 0;
}
