// SPDX-License-Identifier: Apache-2.0
// WorkerSession: one worker process with a model in it, from its start to its end.
//
// Life: Start -> Execute, any number of times, by one thread at a time -> Stop. A thread of the session's own reads
// what the worker says: answers, which Execute waits for; calls of other models, which it passes on; answers of a
// decoupled model, which it sends. Once the worker has died, `is_dead` says so, and Execute fails. Ownership: shared
// with the calls that the worker has made and that are not answered yet, since they view its memory. Copies: inputs
// once, into the worker's memory; outputs are viewed where the worker has put them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "backends/python/shared_arena.h"
#include "backends/python/worker_messages.h"
#include "backends/python/worker_process.h"
#include "core/backend.h"
#include "core/clock.h"
#include "core/model_caller.h"
#include "core/model_config.h"
#include "core/mutex.h"
#include "core/status.h"

namespace gristmill {

struct WorkerOptions {
  std::vector<std::string> command;  // the worker's program and its arguments
  /// What the model is initialized with.
  std::vector<std::pair<std::string, std::string>> properties;
  ModelConfig config;
  Clock* clock = nullptr;         // both outlive the session
  ModelCaller* caller = nullptr;  // may be null
};

class WorkerSession : public std::enable_shared_from_this<WorkerSession> {
 public:
  /// Blocks until the model is initialized. kInvalidArgument with the model's own error if it cannot be.
  static Status Start(WorkerOptions options, std::shared_ptr<WorkerSession>* session);
  ~WorkerSession();

  /// `answers` view the worker's memory until the next Execute. An error is that of the whole batch; kUnavailable if
  /// the worker has died, or has been killed since it took longer than `limit_ns`. For a decoupled model there are
  /// none: it has taken over the items' streams.
  Status Execute(const Batch& batch, int64_t limit_ns, std::vector<ItemAnswer>* answers);

  bool is_dead();

  /// Lets the model clean up, for at most `grace_ns`.
  void Stop(int64_t grace_ns);

 private:
  explicit WorkerSession(WorkerOptions options);
  Status Launch();
  void Read();
  void Handle(const Doorbell& doorbell, std::span<const std::byte> body);
  void HandleCall(std::span<const std::byte> body);
  void HandleStream(std::span<const std::byte> body);
  void Reply(uint64_t call, const Status& status, const InferResponse* response);
  bool PutExecute(const Batch& batch, BodyWriter* body) REQUIRES(mu_);
  /// The tensor with its data in the worker's memory. False: there is no room.
  bool PutTensor(const TensorView& tensor, BodyWriter* body) REQUIRES(mu_);
  Status Send(WorkerMessage kind, std::span<const std::byte> body) REQUIRES(mu_);
  /// The worker's arena is kept as it is until as many releases have been sent.
  void Release(uint32_t messages) REQUIRES(mu_) { to_release_ += messages; }
  void CloseStreams(const Status& status);
  Status Death() REQUIRES(mu_);

  const WorkerOptions options_;
  Clock& clock_;
  std::unique_ptr<SharedArena> ours_;    // what the server writes
  std::unique_ptr<SharedArena> theirs_;  // what the worker writes
  int socket_ = -1;
  WorkerProcess process_;
  std::thread reader_;

  Mutex mu_;
  CondVar changed_;
  bool is_dead_ GUARDED_BY(mu_) = false;
  bool is_killed_ GUARDED_BY(mu_) = false;  // for taking too long
  std::string end_ GUARDED_BY(mu_);         // how it has ended
  uint64_t unreleased_ GUARDED_BY(mu_) = 0;
  uint32_t to_release_ GUARDED_BY(mu_) = 0;
  bool has_answers_ GUARDED_BY(mu_) = false;
  uint32_t answered_ GUARDED_BY(mu_) = 0;  // messages of answers that are still viewed
  std::vector<std::byte> answers_ GUARDED_BY(mu_);
  size_t calls_ GUARDED_BY(mu_) = 0;  // of other models, not answered yet
  int64_t calls_deadline_ns_ GUARDED_BY(mu_) = kNever;
  std::shared_ptr<const WaitingModels> waiting_models_ GUARDED_BY(mu_);
  uint64_t next_ticket_ GUARDED_BY(mu_) = 1;
  std::map<uint64_t, std::shared_ptr<AnswerStream>> streams_ GUARDED_BY(mu_);
  BodyWriter writer_ GUARDED_BY(mu_);
};

}  // namespace gristmill
