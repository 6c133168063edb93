// SPDX-License-Identifier: Apache-2.0
#include "engine/stream_infer_service.h"

#include <sys/epoll.h>

#include <algorithm>
#include <utility>

namespace gristmill {
namespace {

/// As clients of Triton ask for it.
bool AsksForErrorsToEndTheCall(const Metadata& metadata) {
  return std::ranges::any_of(
      metadata, [](const auto& entry) { return entry.first == "triton_grpc_error" && entry.second == "true"; });
}

}  // namespace

Status StreamInferService::Open() {
  if (Status status = completions_.Open(); !status.ok()) return status;
  return loop_.Watch(completions_.fd(), EPOLLIN, this);
}

void StreamInferService::OnCall(Call* call) {
  auto stream = std::make_unique<Stream>();
  stream->call = call;
  stream->errors_end_call = AsksForErrorsToEndTheCall(call->metadata());
  call->handler_state = stream.release();
}

void StreamInferService::OnMessage(Call* call, Buffer message) {
  Stream* stream = StreamOf(call);
  if (stream->is_over) return;
  Turn& turn = stream->turns.emplace_back();
  turn.stream = stream;
  turn.message = std::move(message);
  std::unique_ptr<InferRequest> request = free_requests_.Take();
  turn.in_flight = request.get();
  request->received = ReceivedBytes(turn.message.view(), nullptr, nullptr);
  request->sink = &completions_;
  request->ticket = reinterpret_cast<uint64_t>(&turn);
  request->envelope = stream->errors_end_call ? Envelope::kStreamAnswers : Envelope::kStream;
  request->arrival_ns = engine_.clock().NowNs();
  request->deadline_ns = call->deadline_ns();
  requests_.fetch_add(1, std::memory_order_relaxed);
  if (submitted_.empty()) completions_.Attend();
  submitted_.push_back(std::move(request));
  if (stream->is_reading && stream->turns.size() + stream->unsent >= kMostTurns) {
    stream->is_reading = false;
    call->SetReading(false);
  }
}

void StreamInferService::OnHalfClose(Call* call) {
  StreamOf(call)->is_half_closed = true;
  Advance(StreamOf(call));
}

void StreamInferService::OnSent(Call* call) {
  StreamOf(call)->unsent = 0;
  Advance(StreamOf(call));
}

void StreamInferService::OnCancel(Call* call) {
  GiveUp(StreamOf(call), Cancelled("the caller cancelled the call"));
  Advance(StreamOf(call));
}

void StreamInferService::GiveUp(Stream* stream, Status status) {
  if (std::exchange(stream->is_over, true)) return;
  stream->status = std::move(status);
  for (Turn& turn : stream->turns) {
    if (turn.in_flight != nullptr) engine_.Cancel(turn.in_flight);
  }
}

void StreamInferService::Submit() {
  if (submitted_.empty()) return;
  engine_.Infer(submitted_, MayRun::kYes);
  submitted_.clear();
  Answer();
}

void StreamInferService::OnEvents(uint32_t) {
  completions_.Clear();
  Answer();
}

void StreamInferService::Answer() {
  completions_.Drain(&finished_);
  for (Completion& completion : finished_) {
    if (completion.request == nullptr) {
      SendNow(reinterpret_cast<Turn*>(completion.ticket)->stream, std::move(completion.answer));
      continue;
    }
    auto* turn = reinterpret_cast<Turn*>(completion.request->ticket);
    turn->in_flight = nullptr;
    turn->status = std::move(completion.status);
    turn->answer = std::move(completion.request->encoded_response);
    completion.request->Reset();
    free_requests_.Give(std::move(completion.request));
    turn->message = Buffer();
    requests_.fetch_sub(1, std::memory_order_relaxed);
    Advance(turn->stream);
  }
  finished_.clear();
}

void StreamInferService::SendNow(Stream* stream, Buffer answer) {
  if (stream->is_over) return;
  ++stream->unsent;
  stream->call->SendMessage(std::move(answer));
}

void StreamInferService::Advance(Stream* stream) {
  while (!stream->turns.empty() && stream->turns.front().in_flight == nullptr) {
    Turn turn = std::move(stream->turns.front());
    stream->turns.pop_front();
    if (stream->is_over) continue;
    if (turn.status.ok()) {
      if (!turn.answer.is_null()) SendNow(stream, std::move(turn.answer));
    } else {
      GiveUp(stream, std::move(turn.status));
    }
  }
  if (!stream->is_reading && !stream->is_over && stream->turns.size() + stream->unsent < kMostTurns / 2) {
    stream->is_reading = true;
    stream->call->SetReading(true);
  }
  if (!stream->turns.empty() || !(stream->is_over || stream->is_half_closed)) return;
  Call* call = stream->call;
  const Status status = std::move(stream->status);
  delete stream;
  call->Finish(status, {});
}

}  // namespace gristmill
