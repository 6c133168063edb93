// SPDX-License-Identifier: Apache-2.0
#include "engine/completion_queue.h"

#include <utility>

#include "protocol/infer_response_encoder.h"

namespace gristmill {

CompletionQueue::CompletionQueue(BufferPool* buffers) : buffers_(*buffers) {}

void CompletionQueue::Complete(std::unique_ptr<InferRequest> request, const Status& status,
                               const InferResponse* response) {
  if (response != nullptr) request->encoded_response = EncodeInferResponse(*response, &buffers_);
  MutexLock lock(mu_);
  finished_.push_back({std::move(request), status});
}

void CompletionQueue::Flush() {
  {
    MutexLock lock(mu_);
    if (std::exchange(signalled_, true)) return;
  }
  ready_.Signal();
}

void CompletionQueue::Drain(std::vector<Completion>* completions) {
  completions->clear();
  ready_.Clear();
  MutexLock lock(mu_);
  signalled_ = false;
  finished_.swap(*completions);
}

}  // namespace gristmill
