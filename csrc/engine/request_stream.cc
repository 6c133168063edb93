// SPDX-License-Identifier: Apache-2.0
#include "engine/request_stream.h"

#include <utility>

namespace gristmill {

BatchedServable::RequestStream::RequestStream(BatchedServable* servable, std::unique_ptr<InferRequest> request,
                                              int64_t start_ns)
    : servable_(*servable), request_(std::move(request)), start_ns_(start_ns) {
  MutexLock lock(servable_.mu_);
  ++servable_.open_streams_;
}

BatchedServable::RequestStream::~RequestStream() {
  if (request_ != nullptr) End(Internal("model '" + servable_.config().name + "' ended before it had answered"));
}

void BatchedServable::RequestStream::Send(std::span<const TensorView> outputs) {
  if (request_ == nullptr || is_cancelled()) return;
  const ModelConfig& config = servable_.config();
  outputs_.clear();
  for (uint32_t index : request_->output_indices) {
    if (outputs[index].dtype == DataType::kInvalid) continue;
    outputs_.push_back({config.outputs[index].name, outputs[index]});
  }
  const InferResponse response{.model_name = config.name,
                               .model_version = servable_.version_text(),
                               .id = request_->id,
                               .outputs = outputs_,
                               .finality = Finality::kMoreToCome};
  is_full_ = !request_->sink->Stream(*request_, response);
  request_->sink->Flush();
}

void BatchedServable::RequestStream::End(const Status& status) {
  if (request_ == nullptr) return;
  Status told = status;
  if (request_->cancelled) told = Cancelled("the caller cancelled the request");
  if (is_full_) {
    told = ResourceExhausted(
        "answers that their callers have not read yet fill the server's memory for them; retry later");
  }
  const int64_t end_ns = servable_.clock_.NowNs();
  const int64_t request_ns = end_ns - request_->arrival_ns;
  if (told.ok()) {
    servable_.statistics_.RecordExecution({.rows = request_->rows,
                                           .requests = 1,
                                           .wall_ms = servable_.clock_.WallMs(),
                                           .request_ns = request_ns,
                                           .queue_ns = start_ns_ - request_->enqueue_ns,
                                           .compute_infer_ns = end_ns - start_ns_});
  } else {
    servable_.statistics_.RecordFailures(1, request_ns);
  }
  servable_.pending_.fetch_sub(1, std::memory_order_relaxed);
  ResponseSink* sink = request_->sink;
  sink->Complete(std::move(request_), told, nullptr);
  sink->Flush();
  MutexLock lock(servable_.mu_);
  if (--servable_.open_streams_ == 0) servable_.all_idle_.NotifyAll();
}

}  // namespace gristmill
