// SPDX-License-Identifier: Apache-2.0
#include "engine/batched_servable.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "engine/executor.h"

namespace gristmill {
namespace {

RequestQueueOptions QueueOptions(const ModelConfig& config, const Admission& admission) {
  const BatchingOptions& batching = config.batching;
  const bool combines = batching.dynamic && config.max_batch_size > 0;
  const int64_t delay_ns = batching.max_queue_delay_us > 0 ? batching.max_queue_delay_us * 1000 : kAdaptiveDelay;
  return {
      .max_rows = combines ? config.max_batch_size : 1,
      .max_queue_delay_ns = combines ? delay_ns : 0,
      .preferred_rows = combines ? batching.preferred_rows : std::vector<int64_t>{},
      .levels = batching.levels,
      .default_level = batching.default_level,
      .preserve_order = batching.preserve_order,
      .compatible = [&admission](const InferRequest& a, const InferRequest& b) { return admission.Compatible(a, b); }};
}

std::string Milliseconds(int64_t ns) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f ms", static_cast<double>(ns) / 1e6);
  return text;
}

}  // namespace

BatchedServable::BatchedServable(BatchedServableOptions options, std::shared_ptr<BackendModel> model)
    : Servable(std::move(options.config)),
      clock_(*options.clock),
      policy_(*options.policy),
      admission_(config()),
      model_(std::move(model)),
      queue_(QueueOptions(config(), admission_)),
      profile_(std::max<int64_t>(config().max_batch_size, 1)),
      busy_until_ns_(static_cast<size_t>(config().instance_count)) {}

BatchedServable::~BatchedServable() { Drain(); }

Status BatchedServable::Create(BatchedServableOptions options, std::shared_ptr<BackendModel> model,
                               std::shared_ptr<Servable>* servable) {
  std::shared_ptr<BatchedServable> created(new BatchedServable(std::move(options), std::move(model)));
  for (size_t i = 0; i < static_cast<size_t>(created->config().instance_count); ++i) {
    std::unique_ptr<BackendInstance> instance;
    if (Status status = created->model_->CreateInstance(created->config(), &instance); !status.ok()) return status;
    created->executors_.push_back(std::make_unique<Executor>(created.get(), i, std::move(instance)));
  }
  MutexLock lock(created->drain_mu_);
  for (const auto& executor : created->executors_) {
    created->threads_.emplace_back([runner = executor.get()] { runner->Run(); });
  }
  *servable = std::move(created);
  return Status::Ok();
}

BatchedServable::Refusal BatchedServable::RefuseFull(const QueueLevel& level) const {
  const bool has_priorities = config().batching.levels.size() > 1;
  return {DropReason::kQueueFull,
          ResourceExhausted("the queue of model '" + config().name + "' holds " + std::to_string(level.max_queue_size) +
                            " requests " + (has_priorities ? "of this priority " : "") +
                            "already (max_queue_size); retry later or add capacity")};
}

BatchedServable::Refusal BatchedServable::RefuseUnattainable(const InferRequest& request, int64_t now_ns,
                                                             int64_t answered_ns) const {
  return {DropReason::kUnattainable,
          DeadlineExceeded("model '" + config().name + "' could answer in " + Milliseconds(answered_ns - now_ns) +
                           ", the deadline is in " + Milliseconds(request.deadline_ns - now_ns) +
                           "; allow more time or add instances")};
}

Status BatchedServable::RefuseSequence() const {
  return InvalidArgument("model '" + config().name +
                         "' keeps no state between requests; expected no sequence_id, or sequence_batching in the "
                         "model's configuration");
}

BatchedServable::Refusal BatchedServable::GivenUp(const InferRequest& request, int64_t now_ns) const {
  if (request.deadline_ns <= now_ns) return GivenUp(GivenUpReason::kExpired);
  return {DropReason::kCancelled, Cancelled("the caller cancelled the request")};
}

BatchedServable::Refusal BatchedServable::GivenUp(GivenUpReason reason) const {
  const std::string waited =
      "while the request waited for model '" + config().name + "'; allow more time or add instances";
  switch (reason) {
    case GivenUpReason::kHopeless:
      return {DropReason::kHopeless, DeadlineExceeded("the deadline came too close to be kept " + waited)};
    case GivenUpReason::kTimeout:
      return {DropReason::kTimeout, DeadlineExceeded("the timeout passed " + waited)};
    default:
      return {DropReason::kExpired, DeadlineExceeded("the deadline passed " + waited)};
  }
}

bool BatchedServable::IsUnattainable(const InferRequest& request, int64_t now_ns, int64_t* answered_ns) {
  if (request.deadline_ns == kNever || !profile_.is_fresh(now_ns)) return false;
  int64_t start_ns = std::max(now_ns, std::ranges::min(busy_until_ns_));
  const LatencyTable latency = profile_.table();
  const bool combines = config().batching.dynamic && config().max_batch_size > 0;
  const int64_t rows_ahead = queue_.RowsAhead(request.priority);
  const int64_t rows_of_batch = combines ? config().max_batch_size : request.rows;
  const int64_t batches_ahead = rows_ahead / rows_of_batch;
  start_ns += batches_ahead * latency.At(rows_of_batch).typical_ns / static_cast<int64_t>(busy_until_ns_.size());
  const int64_t rows = combines ? rows_ahead % rows_of_batch + request.rows : request.rows;
  // What nothing stands before may be lucky.
  const LatencyTable::Entry run = latency.At(rows);
  *answered_ns = start_ns + (start_ns == now_ns && rows_ahead == 0 ? run.floor_ns : run.typical_ns);
  return *answered_ns > request.deadline_ns;
}

Servable::Admitted BatchedServable::Enqueue(std::unique_ptr<InferRequest>* request, Status* status) {
  InferRequest& incoming = **request;
  *status = incoming.sequence.is_set() ? RefuseSequence() : admission_.Admit(&incoming);
  if (!status->ok()) {
    statistics_.RecordFailures(1, clock_.NowNs() - incoming.arrival_ns);
    return Admitted::kRefused;
  }
  const uint64_t key = admission_.GroupKey(incoming);
  const int64_t now_ns = incoming.enqueue_ns = clock_.NowNs();
  Refusal refusal;
  int64_t answered_ns = 0;
  if (incoming.cancelled || incoming.deadline_ns <= now_ns) {
    refusal = GivenUp(incoming, now_ns);
  } else {
    MutexLock lock(mu_);
    if (closed_) return Admitted::kClosed;
    if (!queue_.HasRoom(incoming.priority)) {
      refusal = RefuseFull(queue_.LevelFor(incoming.priority));
    } else if (IsUnattainable(incoming, now_ns, &answered_ns)) {
      refusal = RefuseUnattainable(incoming, now_ns, answered_ns);
    } else {
      pending_.fetch_add(1, std::memory_order_relaxed);
      incoming.servable = this;
      queue_.Push(std::move(*request), key);
      return Admitted::kYes;
    }
  }
  statistics_.RecordDrop(refusal.reason, now_ns - incoming.arrival_ns);
  *status = std::move(refusal.status);
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
  Refusal refusal = GivenUp(*removed, now_ns);
  statistics_.RecordDrop(refusal.reason, now_ns - removed->arrival_ns);
  *status = std::move(refusal.status);
  pending_.fetch_sub(1, std::memory_order_relaxed);
  return removed;
}

void BatchedServable::AwaitTurn(uint64_t turn) {
  if (!config().batching.preserve_order) return;
  MutexLock lock(mu_);
  while (answered_turns_ < turn) turn_came_.Wait(mu_);
}

void BatchedServable::EndTurn() {
  if (!config().batching.preserve_order) return;
  {
    MutexLock lock(mu_);
    ++answered_turns_;
  }
  turn_came_.NotifyAll();
}

bool BatchedServable::NextBatch(size_t index, const Run& last, Requests* batch, std::vector<GivenUpRequest>* given_up,
                                uint64_t* turn) {
  MutexLock lock(mu_);
  busy_until_ns_[index] = 0;
  if (last.rows > 0) profile_.Record(last.rows, last.duration_ns, clock_.NowNs());
  while (true) {
    const int64_t now_ns = clock_.NowNs();
    const BatchDecision decision = queue_.Decide(policy_, profile_, now_ns, given_up);
    if (decision.count > 0) queue_.Take(decision, batch, given_up);
    if (!batch->empty() || !given_up->empty()) {
      int64_t rows = 0;
      for (const auto& request : *batch) rows += request->rows;
      if (rows > 0) busy_until_ns_[index] = now_ns + profile_.table().At(rows).typical_ns;
      *turn = next_turn_;
      if (!batch->empty()) ++next_turn_;
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
