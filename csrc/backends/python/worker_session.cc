// SPDX-License-Identifier: Apache-2.0
#include "backends/python/worker_session.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace gristmill {
namespace {

/// A decoupled model's answers are let go of in lots, each worth a message.
constexpr uint32_t kReleasesPerMessage = 64;

Status NoRoom(const std::string& model) {
  return ResourceExhausted("the tensors of one batch of model '" + model + "' take more than the " +
                           std::to_string(SharedArena::kSizeBytes >> 30) +
                           " GiB that server and worker share; send smaller requests");
}

}  // namespace

WorkerSession::WorkerSession(WorkerOptions options) : options_(std::move(options)), clock_(*options_.clock) {}

WorkerSession::~WorkerSession() {
  if (socket_ >= 0) close(socket_);
}

Status WorkerSession::Start(WorkerOptions options, std::shared_ptr<WorkerSession>* session) {
  std::shared_ptr<WorkerSession> started(new WorkerSession(std::move(options)));
  const Status status = started->Launch();
  if (!status.ok()) {
    started->Stop(0);
    return status;
  }
  *session = std::move(started);
  return Status::Ok();
}

Status WorkerSession::Launch() {
  if (Status status = SharedArena::Create(&ours_); !status.ok()) return status;
  if (Status status = SharedArena::Create(&theirs_); !status.ok()) return status;
  int sockets[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) != 0) {
    return ResourceExhausted(std::string("cannot speak to a worker process: ") + strerror(errno));
  }
  socket_ = sockets[0];
  const Status started = process_.Start(options_.command, {sockets[1], ours_->fd(), theirs_->fd()});
  close(sockets[1]);
  if (!started.ok()) return started;
  reader_ = std::thread([this] { Read(); });
  MutexLock lock(mu_);
  writer_.Clear();
  writer_.Put(static_cast<uint32_t>(options_.properties.size()));
  for (const auto& [key, value] : options_.properties) {
    writer_.PutText(key);
    writer_.PutText(value);
  }
  if (Status status = Send(WorkerMessage::kInitialize, writer_.body()); !status.ok()) return status;
  while (!has_answers_ && !is_dead_) changed_.Wait(mu_);
  if (!has_answers_) return Death();
  has_answers_ = false;
  BodyReader reader(answers_, theirs_.get());
  const Status status = ReadStatus(&reader);
  return reader.is_whole() ? status : Internal("the worker process has sent a greeting that cannot be read");
}

Status WorkerSession::Death() {
  const std::string who = "the worker process of model '" + options_.config.name + "' ";
  if (is_killed_) return Unavailable(who + "took longer than its limit and was ended; a new one takes over");
  return Unavailable(who + (end_.empty() ? "has gone" : end_) + "; a new one takes over");
}

bool WorkerSession::is_dead() {
  MutexLock lock(mu_);
  return is_dead_;
}

Status WorkerSession::Send(WorkerMessage kind, std::span<const std::byte> body) {
  if (is_dead_) return Death();
  Doorbell doorbell{.kind = static_cast<uint32_t>(kind), .released = std::exchange(to_release_, 0)};
  if (!body.empty()) {
    std::byte* const at = ours_->Allocate(body.size());
    if (at == nullptr) return NoRoom(options_.config.name);
    std::ranges::copy(body, at);
    doorbell.offset = ours_->OffsetOf(at);
    doorbell.size_bytes = body.size();
  }
  ++unreleased_;
  if (send(socket_, &doorbell, sizeof doorbell, MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof doorbell) return Status::Ok();
  process_.Kill();  // it does not listen
  return Death();
}

bool WorkerSession::PutTensor(const TensorView& tensor, BodyWriter* body) {
  std::byte* const at = ours_->Allocate(tensor.data.size());
  if (at == nullptr) return false;
  std::ranges::copy(tensor.data, at);
  body->PutTensor(tensor, ours_->OffsetOf(at));
  return true;
}

bool WorkerSession::PutExecute(const Batch& batch, BodyWriter* body) {
  static const InferRequest kNobody;
  body->Clear();
  body->Put(static_cast<uint32_t>(batch.items.size()));
  for (const BatchItem& item : batch.items) {
    const InferRequest& request = item.request != nullptr ? *item.request : kNobody;
    const uint64_t ticket = next_ticket_++;
    if (item.answers != nullptr) streams_.emplace(ticket, item.answers);
    body->Put(ticket);
    body->PutText(request.id);
    body->Put(request.sequence.number);
    body->PutText(request.sequence.name);
    body->Put(static_cast<uint8_t>((request.sequence.start ? 1 : 0) | (request.sequence.end ? 2 : 0)));
    body->Put(request.timeout_us);
    body->Put(request.priority);
    body->Put(static_cast<uint32_t>(request.output_indices.size()));
    for (uint32_t index : request.output_indices) body->Put(index);
    body->Put(static_cast<uint32_t>(item.inputs.size()));
    for (const TensorView& input : item.inputs) {
      if (!PutTensor(input, body)) return false;
    }
  }
  return true;
}

Status WorkerSession::Execute(const Batch& batch, int64_t limit_ns, std::vector<ItemAnswer>* answers) {
  auto waiting = std::make_shared<WaitingModels>();
  int64_t deadline_ns = 0;
  for (const BatchItem& item : batch.items) {
    if (item.request != nullptr && item.request->waiting_models != nullptr) {
      waiting->insert(item.request->waiting_models->begin(), item.request->waiting_models->end());
    }
    deadline_ns = std::max(deadline_ns, item.request != nullptr ? item.request->deadline_ns : kNever);
  }
  waiting->insert(options_.config.name);
  MutexLock lock(mu_);
  if (is_dead_) return Death();
  Release(std::exchange(answered_, 0));
  waiting_models_ = std::move(waiting);
  calls_deadline_ns_ = deadline_ns;
  has_answers_ = false;
  if (!PutExecute(batch, &writer_)) return NoRoom(options_.config.name);
  if (Status status = Send(WorkerMessage::kExecute, writer_.body()); !status.ok()) return status;
  const int64_t until_ns = limit_ns > 0 ? clock_.NowNs() + limit_ns : kNever;
  const auto is_done = [this]() REQUIRES(mu_) {
    return is_dead_ || (has_answers_ && (options_.config.decoupled || calls_ == 0));
  };
  while (!is_done()) {
    clock_.WaitUntil(changed_, mu_, until_ns);
    if (!is_done() && clock_.NowNs() >= until_ns) {
      is_killed_ = true;
      process_.Kill();
      while (!is_dead_) changed_.Wait(mu_);
    }
  }
  if (!has_answers_) return Death();
  has_answers_ = false;
  if (!options_.config.decoupled) {
    answered_ = 1;
    return ReadAnswers(answers_, *theirs_, options_.config, batch.items.size(), answers);
  }
  Release(1);
  answers->clear();
  BodyReader reader(answers_, theirs_.get());
  const Status status = ReadStatus(&reader);
  return reader.is_whole() ? status : Internal("the worker process has sent answers that cannot be read");
}

void WorkerSession::Read() {
  Doorbell doorbell;
  while (true) {
    const ssize_t size = recv(socket_, &doorbell, sizeof doorbell, 0);
    if (size < 0 && errno == EINTR) continue;
    if (size != sizeof doorbell) break;
    std::span<const std::byte> body;
    if (!theirs_->View(doorbell.offset, doorbell.size_bytes, &body)) break;
    // A copy, since the worker could change what has been checked.
    const std::vector<std::byte> copy(body.begin(), body.end());
    Handle(doorbell, copy);
  }
  process_.Kill();
  std::string end = process_.End(clock_, 0);
  Status death;
  {
    MutexLock lock(mu_);
    is_dead_ = true;
    end_ = std::move(end);
    death = Death();
  }
  changed_.NotifyAll();
  CloseStreams(death);
}

void WorkerSession::Handle(const Doorbell& doorbell, std::span<const std::byte> body) {
  const auto kind = static_cast<WorkerMessage>(doorbell.kind);
  {
    MutexLock lock(mu_);
    unreleased_ -= std::min<uint64_t>(doorbell.released, unreleased_);
    if (unreleased_ == 0) ours_->Reset();
    if (kind == WorkerMessage::kReady || kind == WorkerMessage::kAnswers) {
      answers_.assign(body.begin(), body.end());
      has_answers_ = true;
      if (kind == WorkerMessage::kReady) Release(1);
      changed_.NotifyAll();
      return;
    }
    if (kind == WorkerMessage::kRelease) return Release(1);
  }
  if (kind == WorkerMessage::kCall) return HandleCall(body);
  if (kind == WorkerMessage::kStream) return HandleStream(body);
  process_.Kill();
}

void WorkerSession::HandleCall(std::span<const std::byte> body) {
  ModelCall call;
  uint64_t number = 0;
  Status status = ReadCall(body, *theirs_, &number, &call);
  {
    MutexLock lock(mu_);
    ++calls_;
    call.waiting_models = waiting_models_;
    call.deadline_ns = calls_deadline_ns_;
  }
  if (status.ok() && options_.caller == nullptr) status = Unimplemented("models cannot call others here");
  if (!status.ok()) return Reply(number, status, nullptr);
  options_.caller->Call(std::move(call),
                        [session = shared_from_this(), number](const Status& result, const InferResponse* response) {
                          session->Reply(number, result, response);
                        });
}

void WorkerSession::Reply(uint64_t call, const Status& status, const InferResponse* response) {
  {
    MutexLock lock(mu_);
    --calls_;
    Release(1);
    BodyWriter body;
    const auto put_head = [&](const Status& told, size_t outputs) {
      body.Clear();
      body.Put(call);
      body.Put(static_cast<uint32_t>(told.code()));
      body.PutText(told.message());
      body.Put(static_cast<uint32_t>(outputs));
    };
    put_head(status, response != nullptr ? response->outputs.size() : 0);
    bool fits = true;
    for (size_t i = 0; response != nullptr && fits && i < response->outputs.size(); ++i) {
      body.PutText(response->outputs[i].name);
      fits = PutTensor(response->outputs[i].tensor, &body);
    }
    if (!fits) put_head(NoRoom(options_.config.name), 0);
    if (!is_dead_) (void)Send(WorkerMessage::kReply, body.body());
  }
  changed_.NotifyAll();
}

void WorkerSession::HandleStream(std::span<const std::byte> body) {
  BodyReader reader(body, theirs_.get());
  const auto ticket = reader.Get<uint64_t>();
  const bool is_last = reader.Get<uint8_t>() != 0;
  const ItemAnswer answer = ReadAnswer(&reader, options_.config);
  const bool is_readable = reader.is_whole();
  std::shared_ptr<AnswerStream> stream;
  {
    MutexLock lock(mu_);
    const auto found = streams_.find(ticket);
    if (found != streams_.end()) {
      stream = found->second;
      if (is_last || !answer.status.ok() || !is_readable) streams_.erase(found);
    }
  }
  bool is_cancelled = false;
  if (stream != nullptr) {
    if (!is_readable) {
      stream->End(Internal("the worker process has sent an answer that cannot be read"));
    } else if (!answer.status.ok()) {
      stream->End(answer.status);
    } else {
      const bool has_outputs = std::ranges::any_of(
          answer.outputs, [](const TensorView& output) { return output.dtype != DataType::kInvalid; });
      if (has_outputs) stream->Send(answer.outputs);
      if (is_last) {
        stream->End(Status::Ok());
      } else {
        is_cancelled = stream->is_cancelled();
      }
    }
  }
  MutexLock lock(mu_);
  Release(1);
  if (is_cancelled) {
    BodyWriter told;
    told.Put(ticket);
    (void)Send(WorkerMessage::kCancel, told.body());
  } else if (to_release_ >= kReleasesPerMessage) {
    (void)Send(WorkerMessage::kRelease, {});
  }
}

void WorkerSession::CloseStreams(const Status& status) {
  std::map<uint64_t, std::shared_ptr<AnswerStream>> streams;
  {
    MutexLock lock(mu_);
    streams.swap(streams_);
  }
  for (auto& [ticket, stream] : streams) stream->End(status);
}

void WorkerSession::Stop(int64_t grace_ns) {
  if (!reader_.joinable()) return;
  {
    MutexLock lock(mu_);
    if (grace_ns > 0 && !is_dead_) (void)Send(WorkerMessage::kFinalize, {});
    const int64_t until_ns = clock_.NowNs() + grace_ns;
    while (!is_dead_ && clock_.NowNs() < until_ns) clock_.WaitUntil(changed_, mu_, until_ns);
    if (!is_dead_) process_.Kill();
  }
  reader_.join();
}

}  // namespace gristmill
