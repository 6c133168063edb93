// SPDX-License-Identifier: Apache-2.0
#include "engine/infer_service.h"

#include <sys/epoll.h>

#include <utility>

namespace gristmill {

Status InferService::Open() {
  if (Status status = completions_.Open(); !status.ok()) return status;
  return loop_.Watch(completions_.fd(), EPOLLIN, this);
}

void InferService::OnCall(Call* call) {
  std::unique_ptr<Exchange> exchange = free_exchanges_.Take();
  calls_.fetch_add(1, std::memory_order_relaxed);
  exchange->call = call;
  call->handler_state = exchange.release();
}

void InferService::OnMessage(Call* call, Buffer message) {
  auto* exchange = static_cast<Exchange*>(call->handler_state);
  if (std::exchange(exchange->has_message, true)) {
    return Finish(exchange, Internal("expected one request message, got more"));
  }
  exchange->message = std::move(message);
}

void InferService::OnHalfClose(Call* call) {
  auto* exchange = static_cast<Exchange*>(call->handler_state);
  if (!exchange->has_message) return Finish(exchange, Internal("expected one request message, got none"));
  std::unique_ptr<InferRequest> request = free_requests_.Take();
  request->received = ReceivedBytes(exchange->message.view(), nullptr, nullptr);
  request->sink = &completions_;
  request->ticket = reinterpret_cast<uint64_t>(exchange);
  request->arrival_ns = call->arrival_ns();
  request->deadline_ns = call->deadline_ns();
  exchange->in_flight = request.get();
  if (submitted_.empty()) completions_.Attend();
  submitted_.push_back(std::move(request));
}

void InferService::OnCancel(Call* call) {
  auto* exchange = static_cast<Exchange*>(call->handler_state);
  if (exchange->in_flight != nullptr) {
    engine_.Cancel(exchange->in_flight);
  } else {
    Finish(exchange, Cancelled("the caller cancelled the request"));
  }
}

void InferService::Submit() {
  if (submitted_.empty()) return;
  engine_.Infer(submitted_, MayRun::kYes);
  submitted_.clear();
  Answer();
}

void InferService::OnEvents(uint32_t) {
  completions_.Clear();
  Answer();
}

void InferService::Answer() {
  completions_.Drain(&finished_);
  for (Completion& completion : finished_) {
    auto* exchange = reinterpret_cast<Exchange*>(completion.request->ticket);
    if (completion.status.ok()) exchange->call->SendMessage(std::move(completion.request->encoded_response));
    Finish(exchange, completion.status);
    completion.request->Reset();
    free_requests_.Give(std::move(completion.request));
  }
  finished_.clear();
}

void InferService::Finish(Exchange* exchange, const Status& status) {
  Call* call = exchange->call;
  *exchange = Exchange();
  free_exchanges_.Give(std::unique_ptr<Exchange>(exchange));
  call->Finish(status, {});
  calls_.fetch_sub(1, std::memory_order_relaxed);
}

}  // namespace gristmill
