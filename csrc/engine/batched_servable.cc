// SPDX-License-Identifier: Apache-2.0
#include "engine/batched_servable.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "engine/executor.h"

namespace gristmill {
namespace {

/// Of the longest short runs, how many one thread does before it leaves the rest to another: what a turn has brought
/// is better done by one thread than by two that share a processor.
constexpr int64_t kShortRuns = 10;

SchedulerOptions OptionsOf(const ModelConfig& config, const Admission& admission, const BatchPolicy& policy) {
  const BatchingOptions& batching = config.batching;
  const bool combines = batching.dynamic && config.max_batch_size > 0;
  const int64_t delay_ns = batching.max_queue_delay_us > 0 ? batching.max_queue_delay_us * 1000 : kAdaptiveDelay;
  RequestQueueOptions queue{
      .max_rows = combines ? config.max_batch_size : 1,
      .max_queue_delay_ns = combines ? delay_ns : 0,
      .preferred_rows = combines ? batching.preferred_rows : std::vector<int64_t>{},
      .levels = batching.levels,
      .default_level = batching.default_level,
      .preserve_order = batching.preserve_order,
      .compatible = [&admission](const InferRequest& a, const InferRequest& b) { return admission.Compatible(a, b); }};
  return {.queue = std::move(queue),
          .max_rows = std::max<int64_t>(config.max_batch_size, 1),
          .executors = config.instance_count,
          .policy = &policy};
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
      admission_(config()),
      owner_(options.owner != nullptr ? options.owner : this),
      model_(std::move(model)),
      scheduler_(OptionsOf(config(), admission_, *options.policy)),
      // A batch that must await its turn may take as long as another model's run.
      short_run_ns_((config().batching.preserve_order && config().instance_count > 1) || model_->waits() ||
                            config().has_own_cpus
                        ? 0
                        : options.short_run_ns) {}

BatchedServable::~BatchedServable() { Drain(); }

Status BatchedServable::Create(BatchedServableOptions options, std::shared_ptr<BackendModel> model,
                               std::shared_ptr<Servable>* servable) {
  RateLimiter* const limiter = options.limiter;
  std::shared_ptr<BatchedServable> created(new BatchedServable(std::move(options), std::move(model)));
  for (size_t i = 0; i < static_cast<size_t>(created->config().instance_count); ++i) {
    std::unique_ptr<BackendInstance> instance;
    if (Status status = created->model_->CreateInstance(created->config(), &instance); !status.ok()) return status;
    created->executors_.push_back(std::make_unique<Executor>(created.get(), i, std::move(instance)));
    MutexLock lock(created->mu_);
    created->idle_.push_back(created->executors_.back().get());
  }
  if (Status status = created->Join(limiter); !status.ok()) return status;
  MutexLock lock(created->drain_mu_);
  for (size_t i = 0; i < created->executors_.size(); ++i) {
    created->threads_.emplace_back([servable = created.get()] { servable->Serve(); });
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

Status BatchedServable::CheckCall(const InferRequest& request) const {
  if (request.sequence.is_set() && !config().sequence) {
    return InvalidArgument("model '" + config().name +
                           "' keeps no state between requests; expected no sequence_id, or sequence_batching in the "
                           "model's configuration");
  }
  if (config().decoupled && request.envelope == Envelope::kNone) {
    return Unimplemented("model '" + config().name +
                         "' may answer a request any number of times; expected it to be called with ModelStreamInfer");
  }
  if (request.waiting_models != nullptr && request.waiting_models->contains(config().name)) {
    return FailedPrecondition("model '" + config().name +
                              "' waits for this answer itself and would wait for ever; a model cannot call itself, "
                              "directly or by way of others");
  }
  return Status::Ok();
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

Servable::Admitted BatchedServable::Enqueue(std::unique_ptr<InferRequest>* request, Status* status) {
  InferRequest& incoming = **request;
  *status = CheckCall(incoming);
  if (status->ok()) *status = admission_.Admit(&incoming);
  if (!status->ok()) {
    statistics_.RecordFailures(1, clock_.NowNs() - incoming.arrival_ns);
    return Admitted::kRefused;
  }
  const uint64_t key = admission_.GroupKey(incoming);
  const int64_t now_ns = incoming.enqueue_ns = clock_.NowNs();
  Refusal refusal;
  int64_t answered_ns = 0;
  // What an owner hands on may be cancelled at this moment, by a call to the owner.
  if ((owner_ == this && incoming.cancelled) || incoming.deadline_ns <= now_ns) {
    refusal = GivenUp(incoming, now_ns);
  } else {
    MutexLock lock(mu_);
    if (closed_) return Admitted::kClosed;
    if (owner_ == this) incoming.servable = this;
    switch (scheduler_.Offer(request, key, now_ns, &answered_ns)) {
      case Scheduler::Verdict::kTaken:
        pending_.fetch_add(1, std::memory_order_relaxed);
        return Admitted::kYes;
      case Scheduler::Verdict::kQueueFull:
        refusal = RefuseFull(scheduler_.LevelFor(incoming.priority));
        break;
      case Scheduler::Verdict::kUnattainable:
        refusal = RefuseUnattainable(incoming, now_ns, answered_ns);
        break;
    }
    if (owner_ == this) incoming.servable = nullptr;
  }
  statistics_.RecordDrop(refusal.reason, now_ns - incoming.arrival_ns);
  *status = std::move(refusal.status);
  return Admitted::kRefused;
}

std::unique_ptr<InferRequest> BatchedServable::Remove(const InferRequest* request, Status* status) {
  std::unique_ptr<InferRequest> removed;
  {
    MutexLock lock(mu_);
    removed = scheduler_.Remove(request);
    if (removed == nullptr) return nullptr;
    // Without it, those that wait for company may be a preferred batch.
    // And without any, this model waits for resources in vain.
    if ((scheduler_.size() > 0 || member_ != nullptr) && !idle_.empty()) arrived_.NotifyOne();
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

Status BatchedServable::Join(RateLimiter* limiter) {
  if (limiter == nullptr || config().resources.empty()) return Status::Ok();
  return RateLimiter::Member::Join(
      limiter, config().resources, config().weight,
      [this] {
        { MutexLock lock(mu_); }  // whoever has found that it may not begin is waiting by now
        arrived_.NotifyOne();
      },
      &member_);
}

void BatchedServable::Run(Executor* executor) {
  const bool has_run = !executor->work()->batch.empty();
  executor->Run();
  if (member_ != nullptr && has_run) {
    bool waits = false;
    {
      MutexLock lock(mu_);
      waits = scheduler_.size() > 0;
    }
    member_->Release(waits);
  }
  LetOthersGo();
}

void BatchedServable::Serve() {
  Executor* executor = nullptr;
  while ((executor = NextBatch(executor)) != nullptr) Run(executor);
}

void BatchedServable::Wake(MayRun may_run) {
  if (may_run == MayRun::kYes && short_run_ns_ > 0) {
    int64_t left_ns = kShortRuns * short_run_ns_;
    Executor* executor = nullptr;
    while ((executor = NextShortBatch(executor, left_ns > 0 ? short_run_ns_ : 0)) != nullptr) {
      Run(executor);
      left_ns -= executor->last_run().cpu_ns;
    }
  } else {
    arrived_.NotifyOne();
  }
}

BatchedServable::Executor* BatchedServable::NextBatch(Executor* previous) {
  while (true) {
    {
      MutexLock lock(mu_);
      if (previous != nullptr) TakeBack(std::exchange(previous, nullptr));
      while (!lets_others_go_) {
        int64_t wait_until_ns = kNever;
        if (Executor* executor = Assign(clock_.NowNs(), &wait_until_ns)) return executor;
        if (lets_others_go_) break;
        if (closed_ && scheduler_.size() == 0) return nullptr;
        clock_.WaitUntil(arrived_, mu_, wait_until_ns);
      }
    }
    LetOthersGo();
  }
}

void BatchedServable::LetOthersGo() {
  if (member_ == nullptr) return;
  {
    MutexLock lock(mu_);
    if (!std::exchange(lets_others_go_, false)) return;
  }
  member_->WakeOthers();
}

BatchedServable::Executor* BatchedServable::NextShortBatch(Executor* previous, int64_t longest_ns) {
  MutexLock lock(mu_);
  if (previous != nullptr) TakeBack(previous);
  if (scheduler_.size() == 0) return nullptr;
  Executor* executor = nullptr;
  if (scheduler_.IsShort(longest_ns)) {
    int64_t wait_until_ns = kNever;
    executor = Assign(clock_.NowNs(), &wait_until_ns);
  }
  if (executor == nullptr && !idle_.empty()) arrived_.NotifyOne();
  return executor;
}

void BatchedServable::TakeBack(Executor* executor) {
  const RunRecord& run = executor->last_run();
  scheduler_.Finished(executor->index(), run.rows, run.duration_ns, run.cpu_ns, clock_.NowNs());
  idle_.push_back(executor);
  if (!closed_) return;
  arrived_.NotifyAll();  // threads that found work left, and no executor for it
  all_idle_.NotifyAll();
}

BatchedServable::Executor* BatchedServable::Assign(int64_t now_ns, int64_t* wait_until_ns) {
  if (idle_.empty()) return nullptr;
  Executor* executor = idle_.back();
  bool asked = false;
  std::function<bool()> may_begin;
  if (member_ != nullptr) {
    may_begin = [&]() {
      asked = true;
      return member_->TryAcquire();
    };
  }
  const bool has_work = scheduler_.Next(executor->index(), now_ns, executor->work(), wait_until_ns, may_begin);
  if (member_ != nullptr && !asked && member_->StopWaiting()) lets_others_go_ = true;
  if (!has_work) return nullptr;
  idle_.pop_back();
  if (!executor->work()->batch.empty()) executor->set_turn(next_turn_++);
  // What is left may be enough for another executor, which Wake has not woken.
  if (scheduler_.size() > 0 && !idle_.empty()) arrived_.NotifyOne();
  return executor;
}

void BatchedServable::Drain() {
  {
    MutexLock lock(mu_);
    closed_ = true;
    scheduler_.StopWaiting();
  }
  arrived_.NotifyAll();
  {
    MutexLock lock(drain_mu_);
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }
  MutexLock lock(mu_);
  while (idle_.size() < executors_.size() || open_streams_ > 0) all_idle_.Wait(mu_);
}

}  // namespace gristmill
