// SPDX-License-Identifier: Apache-2.0
// StreamInferService: ModelStreamInfer on the loops of the native transport: many requests in one call, no Python.
//
// Every message of a call is a request of its own; answers leave in the order of the requests, but for those of
// decoupled models, which leave when they come. An error is told in its request's place and the call goes on, unless
// the client has asked for the call to end with it (metadata triton_grpc_error). A call that has too many requests
// unanswered, or answers unsent, is not read from meanwhile. Thread-safety: its loop's thread only. Copies: none, as
// InferService.
#pragma once

#include <atomic>
#include <cstddef>
#include <deque>
#include <memory>
#include <vector>

#include "core/free_list.h"
#include "engine/completion_queue.h"
#include "engine/engine.h"
#include "transport/call.h"
#include "transport/event_loop.h"

namespace gristmill {

class StreamInferService final : public CallHandler, public Watcher {
 public:
  /// Both outlive the service.
  StreamInferService(Engine* engine, EventLoop* loop)
      : engine_(*engine), loop_(*loop), completions_(&engine->buffers()) {}

  Status Open();

  /// Requests not yet answered. From any thread.
  size_t requests() const { return requests_.load(std::memory_order_relaxed); }

  /// Hands to the engine what came since the last call, all at once, and answers what has been finished meanwhile.
  void Submit();

  bool wants_metadata() const override { return true; }
  void OnCall(Call* call) override;
  void OnMessage(Call* call, Buffer message) override;
  void OnHalfClose(Call* call) override;
  void OnSent(Call* call) override;
  void OnCancel(Call* call) override;

  /// Completions.
  void OnEvents(uint32_t epoll_events) override;

 private:
  struct Stream;

  /// One request, from its message to its answer.
  struct Turn {
    Stream* stream = nullptr;
    Buffer message;
    InferRequest* in_flight = nullptr;  // null once it is answered
    Status status;
    Buffer answer;
  };

  struct Stream {
    Call* call = nullptr;
    std::deque<Turn> turns;  // in the order of the requests; turns stay where they are
    size_t unsent = 0;
    bool is_reading = true;
    bool errors_end_call = false;
    bool is_half_closed = false;
    bool is_over = false;  // nothing more is answered
    Status status;         // of the call
  };

  /// Of one call: requests that are not answered, and answers that are not sent.
  static constexpr size_t kMostTurns = 1000;

  static Stream* StreamOf(Call* call) { return static_cast<Stream*>(call->handler_state); }
  void Answer();
  void SendNow(Stream* stream, Buffer answer);
  /// Sends the answers that are due, and ends the call if nothing more can come.
  void Advance(Stream* stream);
  /// Answers nothing any more, and ends the call once the engine has let go of its requests.
  void GiveUp(Stream* stream, Status status);

  Engine& engine_;
  EventLoop& loop_;
  CompletionQueue completions_;
  std::atomic<size_t> requests_{0};
  std::vector<Completion> finished_;
  std::vector<std::unique_ptr<InferRequest>> submitted_;
  FreeList<InferRequest> free_requests_{4096};
};

}  // namespace gristmill
