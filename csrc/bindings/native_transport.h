// SPDX-License-Identifier: Apache-2.0
// NativeTransport: the transport as Python sees it: ModelInfer is answered by the engine, every other call is an
// exchange of events and commands with one asyncio loop.
//
// Thread-safety: Python's methods are called by that loop's thread, with the GIL; the transport's loops never take it.
// Events cross in a queue with an eventfd, commands are posted to the call's loop.
#pragma once

#include <pybind11/pybind11.h>

#include <atomic>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/event_fd.h"
#include "core/mutex.h"
#include "engine/engine.h"
#include "engine/infer_service.h"
#include "engine/stream_infer_service.h"
#include "transport/server.h"

namespace gristmill::python {

/// Something that happened to a call. Which fields are set depends on the kind.
struct CallEvent {
  enum class Kind { kCall, kMessage, kHalfClose, kSent, kCancel };

  Kind kind;
  uint64_t call = 0;
  std::string path;
  Metadata metadata;
  std::string peer;
  AuthProperties auth;
  int64_t deadline_ns = kNever;
  Buffer message;
};

/// Events on their way to Python.
class EventQueue {
 public:
  Status Open() { return ready_.Open(); }
  int fd() const { return ready_.fd(); }
  void Push(CallEvent event);
  void Take(std::vector<CallEvent>* events);

 private:
  EventFd ready_;
  Mutex mu_;
  std::vector<CallEvent> events_ GUARDED_BY(mu_);
};

/// The calls of one loop that Python answers.
class PythonCalls final : public CallHandler {
 public:
  /// `loop_index` makes the calls' numbers unique among the loops.
  PythonCalls(EventQueue* events, uint64_t loop_index) : events_(*events), next_call_(loop_index << kLoopShift) {}

  static constexpr int kLoopShift = 48;

  bool wants_metadata() const override { return true; }
  void OnCall(Call* call) override;
  void OnMessage(Call* call, Buffer message) override;
  void OnHalfClose(Call* call) override;
  void OnSent(Call* call) override;
  void OnCancel(Call* call) override;

  /// Null for one that is finished.
  Call* Find(uint64_t call) const;
  void Finish(uint64_t call, const Status& status, const Metadata& trailing_metadata);

 private:
  static uint64_t NumberOf(const Call* call) { return reinterpret_cast<uint64_t>(call->handler_state); }
  void Tell(CallEvent::Kind kind, const Call* call) { events_.Push({.kind = kind, .call = NumberOf(call)}); }

  EventQueue& events_;
  uint64_t next_call_;
  std::unordered_map<uint64_t, Call*> calls_;
};

class NativeTransport {
 public:
  NativeTransport(std::shared_ptr<Engine> engine, const ServerOptions& options);
  ~NativeTransport();

  int Listen(const std::string& address, std::shared_ptr<TlsContext> tls);
  void Start();
  void Drain();
  /// Blocks until Python has finished every call; releases the GIL.
  void Stop();

  size_t connections() const { return server_->connections(); }
  size_t calls() const { return server_->calls(); }
  /// Calls of ModelInfer and requests of ModelStreamInfer that are not answered yet.
  size_t infer_calls() const;

  int fileno() const { return events_.fd(); }
  pybind11::list TakeEvents();
  void SetEncoding(uint64_t call, int encoding);
  void SendInitialMetadata(uint64_t call, Metadata metadata);
  void SendMessage(uint64_t call, const pybind11::bytes& message, bool may_compress);
  void Finish(uint64_t call, int code, std::string details, Metadata trailing_metadata);
  void ReadMore(uint64_t call);

 private:
  class Handlers;

  std::unique_ptr<LoopHandlers> MakeHandlers(EventLoop* loop);
  template <typename Work>
  void OnLoopOf(uint64_t call, Work work);

  const std::shared_ptr<Engine> engine_;
  EventQueue events_;
  Status open_status_;
  struct Loop {
    EventLoop* events;
    InferService* infer;
    StreamInferService* stream_infer;
    PythonCalls* python;
  };
  std::vector<Loop> loops_;
  std::unique_ptr<TransportServer> server_;
  std::vector<CallEvent> taken_;
};

}  // namespace gristmill::python
