// SPDX-License-Identifier: Apache-2.0
// RequestStream: a request of a decoupled model, from when it is handed to the model until the model has no more
// answers to it.
#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <vector>

#include "core/backend.h"
#include "core/infer_request.h"
#include "engine/batched_servable.h"

namespace gristmill {

class BatchedServable::RequestStream final : public AnswerStream {
 public:
  RequestStream(BatchedServable* servable, std::unique_ptr<InferRequest> request, int64_t start_ns);
  ~RequestStream() override;

  const InferRequest& request() const { return *request_; }

  void Send(std::span<const TensorView> outputs) override;
  void End(const Status& status) override;
  bool is_cancelled() const override { return is_full_ || request_->cancelled; }

 private:
  BatchedServable& servable_;
  std::unique_ptr<InferRequest> request_;  // null once it has ended
  const int64_t start_ns_;
  bool is_full_ = false;  // an answer found no room, and so no other is sent
  std::vector<OutputTensor> outputs_;
};

}  // namespace gristmill
