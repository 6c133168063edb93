// SPDX-License-Identifier: Apache-2.0
#include "engine/infer_service.h"

#include <sys/epoll.h>

#include <utility>

namespace gristmill {
namespace {

// Finished objects kept for reuse.
constexpr size_t kMaxFree = 4096;

}  // namespace

Status InferService::Open() {
  if (Status status = completions_.Open(); !status.ok()) return status;
  return loop_.Watch(completions_.fd(), EPOLLIN, this);
}

void InferService::OnCall(Call* call) {
  std::unique_ptr<Exchange> exchange;
  if (free_exchanges_.empty()) {
    exchange = std::make_unique<Exchange>();
  } else {
    exchange = std::move(free_exchanges_.back());
    free_exchanges_.pop_back();
  }
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
  std::unique_ptr<InferRequest> request = NewRequest();
  request->received = ReceivedBytes(exchange->message.view(), nullptr, nullptr);
  request->sink = &completions_;
  request->ticket = reinterpret_cast<uint64_t>(exchange);
  request->arrival_ns = call->arrival_ns();
  request->deadline_ns = call->deadline_ns();
  exchange->in_flight = request.get();
  submitted_.push_back(std::move(request));
}

void InferService::OnCancel(Call* call) {
  auto* exchange = static_cast<Exchange*>(call->handler_state);
  if (exchange->in_flight != nullptr) {
    exchange->in_flight->cancelled.store(true, std::memory_order_relaxed);
  } else {
    Finish(exchange, Cancelled("the caller cancelled the request"));
  }
}

void InferService::Submit() {
  if (submitted_.empty()) return;
  engine_.Infer(submitted_);
  submitted_.clear();
}

void InferService::OnEvents(uint32_t) {
  completions_.Drain(&finished_);
  for (Completion& completion : finished_) {
    auto* exchange = reinterpret_cast<Exchange*>(completion.request->ticket);
    if (completion.status.ok()) exchange->call->SendMessage(std::move(completion.request->encoded_response));
    Finish(exchange, completion.status);
    completion.request->Reset();
    if (free_requests_.size() < kMaxFree) free_requests_.push_back(std::move(completion.request));
  }
  finished_.clear();
}

std::unique_ptr<InferRequest> InferService::NewRequest() {
  if (free_requests_.empty()) return std::make_unique<InferRequest>();
  std::unique_ptr<InferRequest> request = std::move(free_requests_.back());
  free_requests_.pop_back();
  return request;
}

void InferService::Finish(Exchange* exchange, const Status& status) {
  Call* call = exchange->call;
  *exchange = Exchange();
  if (free_exchanges_.size() < kMaxFree) {
    free_exchanges_.emplace_back(exchange);
  } else {
    delete exchange;
  }
  call->Finish(status, {});
  calls_.fetch_sub(1, std::memory_order_relaxed);
}

}  // namespace gristmill
