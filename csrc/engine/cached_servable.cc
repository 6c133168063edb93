// SPDX-License-Identifier: Apache-2.0
#include "engine/cached_servable.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <utility>

namespace gristmill {
namespace {

uint64_t NextNumber() {
  static std::atomic<uint64_t> last{0};
  return ++last;
}

class Hasher {
 public:
  Hasher() { XXH3_128bits_reset(&state_); }

  void Add(const void* data, size_t size) { XXH3_128bits_update(&state_, data, size); }
  void Add(uint64_t number) { Add(&number, sizeof number); }

  CacheKey Key() const {
    const XXH128_hash_t hash = XXH3_128bits_digest(&state_);
    return {.low = hash.low64, .high = hash.high64};
  }

 private:
  XXH3_state_t state_;
};

std::shared_ptr<CachedAnswer> Copy(const InferRequest& request, const InferResponse& response) {
  auto answer = std::make_shared<CachedAnswer>();
  for (size_t i = 0; i < response.outputs.size(); ++i) {
    const TensorView& tensor = response.outputs[i].tensor;
    answer->outputs.push_back({.index = request.output_indices[i],
                               .dtype = tensor.dtype,
                               .shape = tensor.shape,
                               .data = std::vector<std::byte>(tensor.data.begin(), tensor.data.end())});
  }
  return answer;
}

}  // namespace

CachedServable::CachedServable(const BatchedServableOptions& options, ResponseCache* cache)
    : Servable(options.config), clock_(*options.clock), cache_(*cache), admission_(config()), number_(NextNumber()) {
  const std::vector<std::string>& names = config().cache->key_inputs;
  for (size_t i = 0; i < config().inputs.size(); ++i) {
    if (names.empty() || std::ranges::find(names, config().inputs[i].name) != names.end()) key_inputs_.push_back(i);
  }
}

CachedServable::~CachedServable() { Drain(); }

Status CachedServable::Create(BatchedServableOptions options, std::shared_ptr<BackendModel> model, ResponseCache* cache,
                              std::shared_ptr<Servable>* servable) {
  std::shared_ptr<CachedServable> created(new CachedServable(options, cache));
  options.owner = created.get();
  if (Status status = BatchedServable::Create(std::move(options), std::move(model), &created->runner_); !status.ok()) {
    return status;
  }
  *servable = std::move(created);
  return Status::Ok();
}

CacheKey CachedServable::KeyOf(const InferRequest& request) const {
  Hasher hasher;
  hasher.Add(number_);
  for (size_t input : key_inputs_) {
    const TensorView& tensor = request.ordered_inputs[input];
    for (int64_t dimension : tensor.shape.dims()) hasher.Add(static_cast<uint64_t>(dimension));
    hasher.Add(tensor.data.size());
    hasher.Add(tensor.data.data(), tensor.data.size());
  }
  // A set: 64 outputs and more are hashed by their order as well.
  uint64_t small_outputs = 0;
  for (uint32_t output : request.output_indices) {
    if (output < 64) {
      small_outputs |= uint64_t{1} << output;
    } else {
      hasher.Add(output);
    }
  }
  hasher.Add(small_outputs);
  return hasher.Key();
}

Servable::Admitted CachedServable::Enqueue(std::unique_ptr<InferRequest>* request, Status* status) {
  InferRequest& incoming = **request;
  const int64_t begin_ns = clock_.NowNs();
  // What is not admitted, and what carries a sequence, is the inner servable's to refuse.
  if (incoming.sequence.is_set() || incoming.cancelled || !admission_.Admit(&incoming).ok()) {
    return runner_->Enqueue(request, status);
  }
  const CacheKey key = KeyOf(incoming);
  std::shared_ptr<const CachedAnswer> answer = cache_.Find(key);
  {
    MutexLock lock(mu_);
    if (closed_) return Admitted::kClosed;
    if (answer == nullptr) {
      incoming.servable = this;
      incoming.enqueue_ns = begin_ns;
      const auto found = flights_.find(key);
      if (found != flights_.end()) {
        pending_.fetch_add(1, std::memory_order_relaxed);
        flight_of_.emplace(&incoming, found->second.get());
        found->second->others.push_back(std::move(*request));
        return Admitted::kYes;
      }
      auto flight = std::make_unique<Flight>();
      flight->key = key;
      flight->missed_ns = clock_.NowNs() - begin_ns;
      pending_.fetch_add(1, std::memory_order_relaxed);
      if (HandOn(flight.get(), request, status)) {
        flights_.emplace(key, std::move(flight));
        return Admitted::kYes;
      }
      pending_.fetch_sub(1, std::memory_order_relaxed);
      incoming.servable = nullptr;
      return Admitted::kRefused;
    }
  }
  ResponseSink* sink = incoming.sink;
  const int64_t end_ns = clock_.NowNs();
  statistics_.RecordCacheHit(
      {.wall_ms = clock_.WallMs(), .request_ns = end_ns - incoming.arrival_ns, .look_up_ns = end_ns - begin_ns});
  AnswerFrom(*answer, std::move(*request));
  sink->Flush();
  return Admitted::kYes;
}

bool CachedServable::HandOn(Flight* flight, std::unique_ptr<InferRequest>* request, Status* status) {
  InferRequest* first = request->get();
  flight->first = first;
  flight->sink = first->sink;
  first->sink = this;
  first->servable_state = flight;
  flight_of_.insert_or_assign(first, flight);
  if (runner_->Enqueue(request, status) == Admitted::kYes) return true;
  Restore(*flight, first);
  flight_of_.erase(first);
  flight->first = nullptr;
  return false;
}

void CachedServable::Restore(const Flight& flight, InferRequest* request) {
  request->sink = flight.sink;
  request->servable_state = nullptr;
}

void CachedServable::GoOn(Flight* flight, std::vector<Refused>* refused) {
  while (!flight->others.empty()) {
    std::unique_ptr<InferRequest> next = std::move(flight->others.front());
    flight->others.pop_front();
    Status status;
    if (HandOn(flight, &next, &status)) return;
    refused->push_back({std::move(next), std::move(status)});
  }
  flights_.erase(flights_.find(flight->key));
  if (flights_.empty()) flights_ended_.NotifyAll();
}

void CachedServable::AnswerFrom(const CachedAnswer& answer, std::unique_ptr<InferRequest> request) {
  std::vector<OutputTensor> outputs;
  for (uint32_t index : request->output_indices) {
    const auto& output = *std::ranges::find(answer.outputs, index, &CachedAnswer::Output::index);
    outputs.push_back({config().outputs[index].name, {output.dtype, output.shape, output.data}});
  }
  const InferResponse response{
      .model_name = config().name, .model_version = version_text(), .id = request->id, .outputs = outputs};
  ResponseSink* sink = request->sink;
  sink->Complete(std::move(request), Status::Ok(), &response);
}

void CachedServable::Complete(std::unique_ptr<InferRequest> request, const Status& status,
                              const InferResponse* response) {
  auto* flight = static_cast<Flight*>(request->servable_state);
  std::shared_ptr<const CachedAnswer> answer;
  if (response != nullptr) {
    const int64_t begin_ns = clock_.NowNs();
    answer = Copy(*request, *response);
    const int64_t ttl_us = config().cache->ttl_us;
    cache_.Insert(flight->key, answer, ttl_us == 0 ? kNever : begin_ns + ttl_us * 1000);
    statistics_.RecordCacheMiss(flight->missed_ns + clock_.NowNs() - begin_ns);
  }
  std::deque<std::unique_ptr<InferRequest>> others;
  std::vector<Refused> refused;
  ResponseSink* sink = flight->sink;
  Restore(*flight, request.get());
  {
    MutexLock lock(mu_);
    flight_of_.erase(request.get());
    flight->first = nullptr;
    if (answer != nullptr) others.swap(flight->others);
    for (const auto& other : others) flight_of_.erase(other.get());
    const auto note = [&](ResponseSink* one) REQUIRES(mu_) {
      if (std::ranges::find(unflushed_, one) == unflushed_.end()) unflushed_.push_back(one);
    };
    note(sink);
    for (const auto& other : others) note(other->sink);
    pending_.fetch_sub(1 + static_cast<int64_t>(others.size()), std::memory_order_relaxed);
    GoOn(flight, &refused);
  }
  sink->Complete(std::move(request), status, response);
  for (auto& other : others) {
    const int64_t now_ns = clock_.NowNs();
    statistics_.RecordCacheHit({.wall_ms = clock_.WallMs(),
                                .request_ns = now_ns - other->arrival_ns,
                                .look_up_ns = now_ns - other->enqueue_ns});
    AnswerFrom(*answer, std::move(other));
  }
  Answer(std::move(refused));
}

void CachedServable::Flush() {
  std::vector<ResponseSink*> sinks;
  {
    MutexLock lock(mu_);
    sinks.swap(unflushed_);
  }
  for (ResponseSink* sink : sinks) sink->Flush();
}

void CachedServable::Answer(std::vector<Refused> refused) {
  for (Refused& one : refused) {
    ResponseSink* sink = one.request->sink;
    pending_.fetch_sub(1, std::memory_order_relaxed);
    sink->Complete(std::move(one.request), one.status, nullptr);
    sink->Flush();
  }
}

std::unique_ptr<InferRequest> CachedServable::Remove(const InferRequest* request, Status* status) {
  std::unique_ptr<InferRequest> removed;
  std::vector<Refused> refused;
  {
    MutexLock lock(mu_);
    const auto found = flight_of_.find(request);
    if (found == flight_of_.end()) return nullptr;
    Flight* flight = found->second;
    if (flight->first == request) {
      removed = runner_->Remove(request, status);
      if (removed == nullptr) return nullptr;
      Restore(*flight, removed.get());
      flight_of_.erase(request);
      flight->first = nullptr;
      GoOn(flight, &refused);
    } else {
      const auto place = std::ranges::find(flight->others, request, &std::unique_ptr<InferRequest>::get);
      removed = std::move(*place);
      flight->others.erase(place);
      flight_of_.erase(found);
      const int64_t now_ns = clock_.NowNs();
      const bool is_late = removed->deadline_ns <= now_ns;
      *status = is_late
                    ? DeadlineExceeded("the deadline passed while the request waited for the answer to an equal one")
                    : Cancelled("the caller cancelled the request");
      statistics_.RecordDrop(is_late ? DropReason::kExpired : DropReason::kCancelled, now_ns - removed->arrival_ns);
    }
    pending_.fetch_sub(1, std::memory_order_relaxed);
  }
  Answer(std::move(refused));
  runner_->Wake(MayRun::kNo);
  return removed;
}

void CachedServable::Drain() {
  {
    MutexLock lock(mu_);
    closed_ = true;
    // A request may still be waiting for one that fails, and then has to be run.
    while (!flights_.empty()) flights_ended_.Wait(mu_);
  }
  if (runner_ != nullptr) runner_->Drain();
}

StatisticsSnapshot CachedServable::statistics() const { return runner_->statistics() + statistics_.Snapshot(); }

}  // namespace gristmill
