// SPDX-License-Identifier: Apache-2.0
// InferService: ModelInfer on the loops of the native transport: a message in, an answer out, no Python.
//
// Thread-safety: its loop's thread only. Copies: none; the request is viewed in the buffer it was received into, the
// answer is written from the buffer it was encoded into.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "core/free_list.h"
#include "engine/completion_queue.h"
#include "engine/engine.h"
#include "transport/call.h"
#include "transport/event_loop.h"

namespace gristmill {

class InferService final : public CallHandler, public Watcher {
 public:
  /// Both outlive the service.
  InferService(Engine* engine, EventLoop* loop) : engine_(*engine), loop_(*loop), completions_(&engine->buffers()) {}

  Status Open();

  /// Calls not yet answered. From any thread.
  size_t calls() const { return calls_.load(std::memory_order_relaxed); }

  /// Hands to the engine what came since the last call, all at once, and answers what has been finished meanwhile.
  void Submit();

  bool wants_metadata() const override { return false; }
  void OnCall(Call* call) override;
  void OnMessage(Call* call, Buffer message) override;
  void OnHalfClose(Call* call) override;
  void OnSent(Call*) override {}
  void OnCancel(Call* call) override;

  /// Completions.
  void OnEvents(uint32_t epoll_events) override;

 private:
  /// One call. In flight once the engine has its request.
  struct Exchange {
    Call* call = nullptr;
    Buffer message;
    bool has_message = false;
    InferRequest* in_flight = nullptr;
  };

  void Answer();
  void Finish(Exchange* exchange, const Status& status);

  Engine& engine_;
  EventLoop& loop_;
  CompletionQueue completions_;
  std::atomic<size_t> calls_{0};
  std::vector<Completion> finished_;
  std::vector<std::unique_ptr<InferRequest>> submitted_;
  FreeList<InferRequest> free_requests_{4096};
  FreeList<Exchange> free_exchanges_{4096};
};

}  // namespace gristmill
