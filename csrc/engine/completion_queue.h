// SPDX-License-Identifier: Apache-2.0
// CompletionQueue: carries answers from executor threads to the one event loop that waits for them.
//
// Life: must outlive every request whose sink it is.
// Thread-safety: Complete and Flush may be called by any thread; Clear, Attend and Drain by the loop's thread.
// Blocking: a short lock to append or to swap; one eventfd write per batch, none if the loop has not yet come round or
// is going to by itself.
// Memory: answers are encoded into pooled buffers while the batch's outputs are still valid, so that the model's
// buffers are free for the next batch.
#pragma once

#include <memory>
#include <vector>

#include "core/buffer.h"
#include "core/event_fd.h"
#include "core/infer_request.h"
#include "core/mutex.h"
#include "core/status.h"

namespace gristmill {

struct Completion {
  std::unique_ptr<InferRequest> request;  // encoded_response is set if `status` is OK and there is an answer
  Status status;
  // Of one of several answers to a request that is not finished yet: no request, but its ticket.
  uint64_t ticket = 0;
  Buffer answer;
};

class CompletionQueue final : public ResponseSink {
 public:
  /// `buffers` outlives the queue.
  explicit CompletionQueue(BufferPool* buffers);
  CompletionQueue(const CompletionQueue&) = delete;
  CompletionQueue& operator=(const CompletionQueue&) = delete;

  /// kResourceExhausted if the process has no file descriptor left.
  Status Open() { return ready_.Open(); }

  /// Readable when there may be something to drain; then Clear, then Drain. -1 before Open.
  int fd() const { return ready_.fd(); }

  void Complete(std::unique_ptr<InferRequest> request, const Status& status, const InferResponse* response) override;
  bool Stream(const InferRequest& request, const InferResponse& response) override;
  void Flush() override;

  /// Only ever followed by Drain, or what it has cleared would be forgotten.
  void Clear() { ready_.Clear(); }

  /// Says that the loop's thread is awake and is going to Drain, so that nobody needs to wake it until it has.
  void Attend();

  /// Replaces the contents of `completions` with what has finished since the last call.
  void Drain(std::vector<Completion>* completions);

 private:
  Status Encode(const InferResponse& response, InferRequest* request);

  BufferPool& buffers_;
  EventFd ready_;

  Mutex mu_;
  bool attended_ GUARDED_BY(mu_) = false;
  bool signalled_ GUARDED_BY(mu_) = false;
  std::vector<Completion> finished_ GUARDED_BY(mu_);
};

}  // namespace gristmill
