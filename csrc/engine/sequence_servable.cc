// SPDX-License-Identifier: Apache-2.0
#include "engine/sequence_servable.h"

#include <algorithm>
#include <utility>

namespace gristmill {
namespace {

/// Sequences that one version keeps at the same time.
constexpr size_t kMostSequences = 65'536;

}  // namespace

SequenceServable::SequenceServable(const BatchedServableOptions& options)
    : Servable(options.config), clock_(*options.clock), admission_(config()), inputs_(config()) {}

SequenceServable::~SequenceServable() { Drain(); }

Status SequenceServable::Create(BatchedServableOptions options, std::shared_ptr<BackendModel> model,
                                std::shared_ptr<Servable>* servable) {
  std::shared_ptr<SequenceServable> created(new SequenceServable(options));
  const int instances = options.config.instance_count;
  const int64_t slots = options.config.sequence->max_sequences_per_instance;
  options.config = SequenceInputs::WithSequenceTensors(options.config);
  options.config.instance_count = 1;
  options.owner = created.get();
  for (int i = 0; i < instances; ++i) {
    auto instance = std::make_unique<Instance>();
    instance->slots = slots;
    if (Status status = BatchedServable::Create(options, model, &instance->runner); !status.ok()) return status;
    created->instances_.push_back(std::move(instance));
  }
  MutexLock lock(created->drain_mu_);
  created->watcher_ = std::thread([watched = created.get()] { watched->WatchIdle(); });
  *servable = std::move(created);
  return Status::Ok();
}

std::string SequenceServable::KeyOf(const SequenceTag& tag) {
  return tag.name.empty() ? "#" + std::to_string(tag.number) : "$" + std::string(tag.name);
}

Servable::Admitted SequenceServable::Enqueue(std::unique_ptr<InferRequest>* request, Status* status) {
  InferRequest& incoming = **request;
  const std::string key = KeyOf(incoming.sequence);
  if (!incoming.sequence.is_set()) {
    *status = InvalidArgument("model '" + config().name + "' serves sequences; expected a sequence_id in the request");
  } else {
    *status = admission_.Admit(&incoming);
  }
  if (status->ok() && incoming.rows != 1) {
    *status = InvalidArgument("model '" + config().name + "' serves sequences; expected one row per request, got " +
                              std::to_string(incoming.rows));
  }
  Refusals refusals;
  if (status->ok()) {
    MutexLock lock(mu_);
    if (closed_) return Admitted::kClosed;
    EndIdle(clock_.NowNs(), &refusals);
    Sequence* sequence = nullptr;
    *status = FindOrBegin(incoming, key, &sequence);
    if (status->ok()) {
      SetBusy(sequence);
      if (std::exchange(sequence->next_is_to_start, false)) incoming.sequence.start = true;
      sequence->is_to_end = incoming.sequence.end;
      incoming.servable = this;
      pending_.fetch_add(1, std::memory_order_relaxed);
      ++unanswered_;
      sequence->waiting.push_back(std::move(*request));
      Advance(sequence, &refusals);
    }
  }
  Answer(std::move(refusals));
  if (status->ok()) return Admitted::kYes;
  refused_.RecordFailures(1, clock_.NowNs() - incoming.arrival_ns);
  Wake(MayRun::kNo);  // where a sequence that was over has made room for others
  return Admitted::kRefused;
}

SequenceServable::Sequence* SequenceServable::Find(const std::string& key) {
  const auto found = sequences_.find(key);
  return found == sequences_.end() ? nullptr : found->second.get();
}

Status SequenceServable::FindOrBegin(const InferRequest& request, const std::string& key, Sequence** sequence) {
  *sequence = Find(key);
  const bool goes_on = *sequence != nullptr && !(*sequence)->is_to_end;
  if (!goes_on && !request.sequence.start) {
    return InvalidArgument("model '" + config().name + "' knows no sequence '" + key.substr(1) +
                           "', or it is over; the first request of a sequence must say sequence_start");
  }
  if (*sequence != nullptr) return Status::Ok();
  if (sequences_.size() >= kMostSequences) {
    return ResourceExhausted("model '" + config().name + "' keeps " + std::to_string(kMostSequences) +
                             " sequences already; end some with sequence_end, or retry later");
  }
  auto begun = std::make_unique<Sequence>();
  if (Status status = inputs_.Name(request.sequence, &begun->values); !status.ok()) return status;
  begun->key = key;
  begun->instance =
      std::ranges::min_element(instances_, {}, [](const auto& instance) { return instance->members; })->get();
  Instance& instance = *begun->instance;
  ++instance.members;
  if (instance.slots > 0) {
    --instance.slots;
    begun->has_slot = true;
  } else {
    instance.backlog.push_back(begun.get());
  }
  *sequence = sequences_.emplace(key, std::move(begun)).first->second.get();
  return Status::Ok();
}

void SequenceServable::Advance(Sequence* sequence, Refusals* refusals) {
  while (sequence->has_slot && sequence->in_flight == nullptr && !sequence->waiting.empty()) {
    if (HandOn(sequence, refusals)) return;
  }
  if (sequence->in_flight != nullptr || !sequence->waiting.empty()) return;
  if (sequence->is_to_end || closed_) {
    End(sequence, refusals);
  } else {
    SetIdle(sequence);
  }
}

bool SequenceServable::HandOn(Sequence* sequence, Refusals* refusals) {
  std::unique_ptr<InferRequest> request = std::move(sequence->waiting.front());
  sequence->waiting.pop_front();
  if (request->sequence.start) sequence->is_to_start = true;
  if (sequence->is_to_start) inputs_.Reset(&sequence->values);
  sequence->in_flight = request.get();
  sequence->sink = request->sink;
  sequence->inputs = request->inputs.size();
  sequence->requested_outputs = request->requested_outputs.size();
  sequence->answered_outputs = request->output_indices.size();
  inputs_.Append(sequence->values, sequence->is_to_start, request->sequence.end, request.get());
  request->sink = this;
  request->servable_state = sequence;
  Status status;
  if (sequence->instance->runner->Enqueue(&request, &status) == Admitted::kYes) return true;
  Restore(sequence, request.get());
  sequence->in_flight = nullptr;
  refusals->push_back({std::move(request), std::move(status)});
  return false;
}

void SequenceServable::Restore(Sequence* sequence, InferRequest* request) {
  inputs_.Remove(sequence->inputs, sequence->requested_outputs, request);
  request->sink = sequence->sink;
  request->servable_state = nullptr;
}

void SequenceServable::SetIdle(Sequence* sequence) {
  if (sequence->is_idle) return;
  sequence->is_idle = true;
  sequence->over_at_ns = clock_.NowNs() + config().sequence->max_idle_us * 1000;
  sequence->idle_place = idle_.insert(idle_.end(), sequence);
  if (idle_.size() == 1) changed_.NotifyAll();
}

void SequenceServable::SetBusy(Sequence* sequence) {
  if (!std::exchange(sequence->is_idle, false)) return;
  idle_.erase(sequence->idle_place);
}

void SequenceServable::End(Sequence* sequence, Refusals* refusals) {
  SetBusy(sequence);
  Instance& instance = *sequence->instance;
  --instance.members;
  if (sequence->has_slot) {
    ++instance.slots;
  } else {
    std::erase(instance.backlog, sequence);
  }
  sequences_.erase(sequences_.find(sequence->key));
  while (instance.slots > 0 && !instance.backlog.empty()) {
    Sequence* next = instance.backlog.front();
    instance.backlog.pop_front();
    --instance.slots;
    next->has_slot = true;
    Advance(next, refusals);
  }
}

void SequenceServable::EndIdle(int64_t now_ns, Refusals* refusals) {
  while (!idle_.empty() && idle_.front()->over_at_ns <= now_ns) End(idle_.front(), refusals);
}

std::unique_ptr<InferRequest> SequenceServable::Remove(const InferRequest* request, Status* status) {
  std::unique_ptr<InferRequest> removed;
  Refusals refusals;
  {
    MutexLock lock(mu_);
    Sequence* sequence = Find(KeyOf(request->sequence));
    if (sequence == nullptr) return nullptr;
    auto successor = sequence->waiting.begin();
    if (sequence->in_flight == request) {
      removed = sequence->instance->runner->Remove(request, status);
      if (removed == nullptr) return nullptr;
      Restore(sequence, removed.get());
      sequence->in_flight = nullptr;
    } else {
      const auto place = std::ranges::find(sequence->waiting, request, &std::unique_ptr<InferRequest>::get);
      if (place == sequence->waiting.end()) return nullptr;
      removed = std::move(*place);
      successor = sequence->waiting.erase(place);
      const bool is_late = removed->deadline_ns <= clock_.NowNs();
      *status = is_late ? DeadlineExceeded("the deadline passed while the request waited for its sequence's turn")
                        : Cancelled("the caller cancelled the request");
      refused_.RecordDrop(is_late ? DropReason::kExpired : DropReason::kCancelled,
                          clock_.NowNs() - removed->arrival_ns);
    }
    // A start that is lost falls to the next request.
    if (removed->sequence.start) {
      if (successor == sequence->waiting.end()) {
        sequence->next_is_to_start = true;
      } else {
        (*successor)->sequence.start = true;
      }
    }
    --unanswered_;
    pending_.fetch_sub(1, std::memory_order_relaxed);
    Advance(sequence, &refusals);
    changed_.NotifyAll();
  }
  Answer(std::move(refusals));
  Wake(MayRun::kNo);
  return removed;
}

void SequenceServable::Wake(MayRun may_run) {
  for (const auto& instance : instances_) instance->runner->Wake(may_run);
}

void SequenceServable::Complete(std::unique_ptr<InferRequest> request, const Status& status,
                                const InferResponse* response) {
  auto* sequence = static_cast<Sequence*>(request->servable_state);
  ResponseSink* sink = sequence->sink;
  Restore(sequence, request.get());
  // Nobody else looks at the values of a sequence that has a request in flight.
  InferResponse answer;
  if (response != nullptr) {
    inputs_.Keep(response->outputs, &sequence->values);
    answer = *response;
    answer.outputs = response->outputs.first(sequence->answered_outputs);
  }
  pending_.fetch_sub(1, std::memory_order_relaxed);
  sink->Complete(std::move(request), status, response != nullptr ? &answer : nullptr);
  Refusals refusals;
  {
    MutexLock lock(mu_);
    if (std::ranges::find(unflushed_, sink) == unflushed_.end()) unflushed_.push_back(sink);
    sequence->in_flight = nullptr;
    if (status.ok()) sequence->is_to_start = false;
    --unanswered_;
    Advance(sequence, &refusals);
    if (unanswered_ == 0) changed_.NotifyAll();
  }
  Answer(std::move(refusals));
}

void SequenceServable::Flush() {
  std::vector<ResponseSink*> sinks;
  {
    MutexLock lock(mu_);
    sinks.swap(unflushed_);
  }
  for (ResponseSink* sink : sinks) sink->Flush();
}

void SequenceServable::Answer(Refusals refusals) {
  if (refusals.empty()) return;
  for (Refused& refused : refusals) {
    ResponseSink* sink = refused.request->sink;
    pending_.fetch_sub(1, std::memory_order_relaxed);
    sink->Complete(std::move(refused.request), refused.status, nullptr);
    sink->Flush();
  }
  MutexLock lock(mu_);
  unanswered_ -= static_cast<int64_t>(refusals.size());
  if (unanswered_ == 0) changed_.NotifyAll();
}

void SequenceServable::WatchIdle() {
  while (true) {
    Refusals refusals;
    {
      MutexLock lock(mu_);
      if (stopped_) return;
      const int64_t now_ns = clock_.NowNs();
      if (idle_.empty() || idle_.front()->over_at_ns > now_ns) {
        clock_.WaitUntil(changed_, mu_, idle_.empty() ? kNever : idle_.front()->over_at_ns);
        continue;
      }
      EndIdle(now_ns, &refusals);
    }
    Answer(std::move(refusals));
    Wake(MayRun::kNo);
  }
}

void SequenceServable::Drain() {
  Refusals refusals;
  {
    MutexLock lock(mu_);
    closed_ = true;
    // No request comes any more, so whoever has none is over, and its place is free for those that wait.
    while (!idle_.empty()) End(idle_.front(), &refusals);
  }
  Answer(std::move(refusals));
  Wake(MayRun::kNo);
  {
    MutexLock lock(mu_);
    while (unanswered_ > 0) changed_.Wait(mu_);
    stopped_ = true;
    changed_.NotifyAll();
  }
  for (const auto& instance : instances_) instance->runner->Drain();
  MutexLock lock(drain_mu_);
  if (watcher_.joinable()) watcher_.join();
}

StatisticsSnapshot SequenceServable::statistics() const {
  StatisticsSnapshot sum = refused_.Snapshot();
  for (const auto& instance : instances_) sum = std::move(sum) + instance->runner->statistics();
  return sum;
}

}  // namespace gristmill
