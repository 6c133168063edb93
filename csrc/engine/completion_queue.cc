// SPDX-License-Identifier: Apache-2.0
#include "engine/completion_queue.h"

#include <utility>

#include "protocol/infer_response_encoder.h"

namespace gristmill {

CompletionQueue::CompletionQueue(BufferPool* buffers) : buffers_(*buffers) {}

void CompletionQueue::Complete(std::unique_ptr<InferRequest> request, const Status& status,
                               const InferResponse* response) {
  Status encoded = response != nullptr ? Encode(*response, request.get()) : status;
  if (encoded.ok() && response == nullptr && request->wants_final_response) {
    encoded = Encode({.model_name = request->model_name,
                      .model_version = request->model_version,
                      .id = request->id,
                      .finality = Finality::kLast},
                     request.get());
  }
  if (!encoded.ok() && request->envelope == Envelope::kStream) {
    request->encoded_response = EncodeStreamInferError(encoded.message(), request->id, &buffers_);
    if (!request->encoded_response.is_null()) encoded = Status::Ok();
  }
  MutexLock lock(mu_);
  finished_.push_back({.request = std::move(request), .status = encoded});
}

bool CompletionQueue::Stream(const InferRequest& request, const InferResponse& response) {
  Buffer answer = EncodeStreamInferResponse(response, &buffers_);
  if (answer.is_null()) return false;
  MutexLock lock(mu_);
  finished_.push_back({.ticket = request.ticket, .answer = std::move(answer)});
  return true;
}

Status CompletionQueue::Encode(const InferResponse& response, InferRequest* request) {
  request->encoded_response = request->envelope == Envelope::kNone ? EncodeInferResponse(response, &buffers_)
                                                                   : EncodeStreamInferResponse(response, &buffers_);
  if (!request->encoded_response.is_null()) return Status::Ok();
  return ResourceExhausted(
      "answers that their callers have not read yet fill the server's memory for them; retry later");
}

void CompletionQueue::Flush() {
  {
    MutexLock lock(mu_);
    if (attended_ || std::exchange(signalled_, true)) return;
  }
  ready_.Signal();
}

void CompletionQueue::Attend() {
  MutexLock lock(mu_);
  attended_ = true;
}

void CompletionQueue::Drain(std::vector<Completion>* completions) {
  completions->clear();
  MutexLock lock(mu_);
  attended_ = signalled_ = false;
  finished_.swap(*completions);
}

}  // namespace gristmill
