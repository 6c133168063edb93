// SPDX-License-Identifier: Apache-2.0
#include "engine/batched_servable.h"

#include <algorithm>
#include <utility>

#include "engine/executor.h"

namespace gristmill {
namespace {

RequestQueueOptions QueueOptions(const ModelConfig& config, const Admission& admission) {
  const bool combines = config.batching.dynamic && config.max_batch_size > 0;
  return {
      .max_rows = combines ? config.max_batch_size : 1,
      .max_queue_delay_ns = combines ? config.batching.max_queue_delay_us * 1000 : 0,
      .preferred_rows = combines ? config.batching.preferred_rows : std::vector<int64_t>{},
      .compatible = [&admission](const InferRequest& a, const InferRequest& b) { return admission.Compatible(a, b); }};
}

}  // namespace

BatchedServable::BatchedServable(BatchedServableOptions options, std::shared_ptr<BackendModel> model)
    : Servable(std::move(options.config)),
      clock_(*options.clock),
      policy_(*options.policy),
      admission_(config()),
      model_(std::move(model)),
      queue_(QueueOptions(config(), admission_)) {}

BatchedServable::~BatchedServable() { Drain(); }

Status BatchedServable::Create(BatchedServableOptions options, std::shared_ptr<BackendModel> model,
                               std::shared_ptr<Servable>* servable) {
  std::shared_ptr<BatchedServable> created(new BatchedServable(std::move(options), std::move(model)));
  for (int i = 0; i < created->config().instance_count; ++i) {
    std::unique_ptr<BackendInstance> instance;
    if (Status status = created->model_->CreateInstance(created->config(), &instance); !status.ok()) return status;
    created->executors_.push_back(std::make_unique<Executor>(created.get(), std::move(instance)));
  }
  MutexLock lock(created->drain_mu_);
  for (const auto& executor : created->executors_) {
    created->threads_.emplace_back([runner = executor.get()] { runner->Run(); });
  }
  *servable = std::move(created);
  return Status::Ok();
}

Status BatchedServable::RefuseFull() const {
  return ResourceExhausted("the queue of model '" + config().name + "' holds " +
                           std::to_string(config().batching.max_queue_size) +
                           " requests already (max_queue_size); retry later or add capacity");
}

Status BatchedServable::RefuseSequence() const {
  return InvalidArgument("model '" + config().name +
                         "' keeps no state between requests; expected no sequence_id, or sequence_batching in the "
                         "model's configuration");
}

Status BatchedServable::GivenUp(const InferRequest& request, int64_t now_ns) const {
  if (request.deadline_ns > now_ns) return Cancelled("the caller cancelled the request");
  return DeadlineExceeded("the deadline passed while the request waited for model '" + config().name +
                          "'; allow more time or add instances");
}

Servable::Admitted BatchedServable::Enqueue(std::unique_ptr<InferRequest>* request, Status* status) {
  InferRequest& incoming = **request;
  const int64_t limit = config().batching.max_queue_size;
  *status = incoming.sequence.is_set() ? RefuseSequence() : admission_.Admit(&incoming);
  if (status->ok()) {
    const uint64_t key = admission_.GroupKey(incoming);
    incoming.enqueue_ns = clock_.NowNs();
    if (incoming.timeout_us > 0) {
      incoming.deadline_ns = std::min(incoming.deadline_ns, incoming.arrival_ns + incoming.timeout_us * 1000);
    }
    if (incoming.cancelled || incoming.deadline_ns <= incoming.enqueue_ns) {
      *status = GivenUp(incoming, incoming.enqueue_ns);
    } else {
      MutexLock lock(mu_);
      if (closed_) return Admitted::kClosed;
      if (limit > 0 && queue_.size() >= static_cast<size_t>(limit)) {
        *status = RefuseFull();
      } else {
        pending_.fetch_add(1, std::memory_order_relaxed);
        incoming.servable = this;
        queue_.Push(std::move(*request), key);
      }
    }
    if (status->ok()) return Admitted::kYes;
  }
  statistics_.RecordFailures(1, clock_.NowNs() - incoming.arrival_ns);
  return Admitted::kRefused;
}

std::unique_ptr<InferRequest> BatchedServable::Remove(const InferRequest* request, Status* status) {
  std::unique_ptr<InferRequest> removed;
  {
    MutexLock lock(mu_);
    removed = queue_.Remove(request);
    if (removed == nullptr) return nullptr;
    // Without it, those that wait for company may be a preferred batch.
    if (queue_.size() > 0 && idle_executors_ > 0) arrived_.NotifyOne();
  }
  const int64_t now_ns = clock_.NowNs();
  *status = GivenUp(*removed, now_ns);
  statistics_.RecordFailures(1, now_ns - removed->arrival_ns);
  pending_.fetch_sub(1, std::memory_order_relaxed);
  return removed;
}

bool BatchedServable::NextBatch(Requests* batch, Requests* dropped) {
  MutexLock lock(mu_);
  while (true) {
    const BatchDecision decision = queue_.Decide(policy_, clock_.NowNs(), dropped);
    if (decision.count > 0) queue_.Take(decision, batch);
    if (!batch->empty() || !dropped->empty()) {
      // What is left may be enough for another executor, which Wake has not woken.
      if (queue_.size() > 0 && idle_executors_ > 0) arrived_.NotifyOne();
      return true;
    }
    if (closed_ && queue_.size() == 0) return false;
    ++idle_executors_;
    clock_.WaitUntil(arrived_, mu_, decision.wait_until_ns);
    --idle_executors_;
  }
}

void BatchedServable::Drain() {
  {
    MutexLock lock(mu_);
    closed_ = true;
    queue_.StopWaiting();
  }
  arrived_.NotifyAll();
  MutexLock lock(drain_mu_);
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

}  // namespace gristmill
