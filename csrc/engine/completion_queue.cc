// SPDX-License-Identifier: Apache-2.0
#include "engine/completion_queue.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "protocol/infer_response_encoder.h"

namespace gristmill {

CompletionQueue::CompletionQueue(BufferPool* buffers) : buffers_(*buffers) {}

CompletionQueue::~CompletionQueue() {
  if (fd_ >= 0) close(fd_);
}

Status CompletionQueue::Open() {
  fd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (fd_ >= 0) return Status::Ok();
  return ResourceExhausted(std::string("cannot make an eventfd: ") + strerror(errno));
}

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
  // A non-blocking eventfd fails to count only at 2^64 - 2, which one pending signal never reaches.
  const uint64_t one = 1;
  (void)!write(fd_, &one, sizeof one);
}

void CompletionQueue::Drain(std::vector<Completion>* completions) {
  completions->clear();
  uint64_t count = 0;
  (void)!read(fd_, &count, sizeof count);
  MutexLock lock(mu_);
  signalled_ = false;
  finished_.swap(*completions);
}

}  // namespace gristmill
