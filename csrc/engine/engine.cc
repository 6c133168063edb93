// SPDX-License-Identifier: Apache-2.0
#include "engine/engine.h"

#include <algorithm>
#include <utility>

#include "engine/cached_servable.h"
#include "engine/sequence_servable.h"
#include "protocol/infer_request_decoder.h"

namespace gristmill {
namespace {

/// For an answer to be encoded, handed to its loop and sent.
constexpr int64_t kSlackNs = 50'000;
/// A thread that sleeps for less wakes up about as late.
constexpr int64_t kShortestWaitNs = 20'000;
/// To wake another thread and to be woken by it costs about as much.
constexpr int64_t kShortRunNs = 200'000;

Status CheckConfig(const ModelConfig& config) {
  const auto refuse = [&](const std::string& what) {
    return InvalidArgument("configuration of model '" + config.name + "': " + what);
  };
  if (config.name.empty()) return refuse("name must not be empty");
  if (config.version < 1) return refuse("version must be at least 1, not " + std::to_string(config.version));
  if (config.max_batch_size < 0) return refuse("max_batch_size must not be negative");
  if (config.instance_count < 1) return refuse("an instance count must be at least 1");
  if (config.outputs.empty()) return refuse("a model must have at least one output");
  if (config.batching.max_queue_delay_us < 0) return refuse("max_queue_delay_microseconds must not be negative");
  if (config.batching.levels.empty()) return refuse("a queue must have at least one priority level");
  if (config.batching.default_level >= config.batching.levels.size()) {
    return refuse("default_priority_level must lie between 1 and priority_levels");
  }
  for (const QueueLevel& level : config.batching.levels) {
    if (level.max_queue_size < 0) return refuse("max_queue_size must not be negative");
    if (level.default_timeout_us < 0) return refuse("default_timeout_microseconds must not be negative");
  }
  const auto& preferred = config.batching.preferred_rows;
  if (!std::ranges::is_sorted(preferred)) return refuse("preferred_batch_size must ascend");
  if (!preferred.empty() && (preferred.front() < 1 || preferred.back() > config.max_batch_size)) {
    return refuse("preferred_batch_size must lie between 1 and max_batch_size, " +
                  std::to_string(config.max_batch_size));
  }
  if (config.cache && config.sequence) return refuse("answers of a model of sequences cannot be cached");
  if (config.cache && config.cache->ttl_us < 0) return refuse("the time to live of answers must not be negative");
  if (config.sequence) {
    if (config.sequence->max_sequences_per_instance < 1) return refuse("an instance must serve at least one sequence");
    if (config.sequence->max_idle_us < 1) return refuse("max_sequence_idle_microseconds must be at least 1");
  }
  const ModelConfig all = config.sequence ? SequenceInputs::WithSequenceTensors(config) : config;
  for (const auto* specs : {&all.inputs, &all.outputs}) {
    for (const TensorSpec& spec : *specs) {
      if (spec.dtype == DataType::kInvalid) return refuse("tensor '" + spec.name + "' has no data type");
      if (spec.dims.size() + 1 > Shape::kMaxRank) {
        return refuse("tensor '" + spec.name + "' has " + std::to_string(spec.dims.size()) + " dims; at most " +
                      std::to_string(Shape::kMaxRank - 1) + " are supported");
      }
    }
  }
  return Status::Ok();
}

void Refuse(std::unique_ptr<InferRequest> request, const Status& status) {
  ResponseSink* sink = request->sink;
  sink->Complete(std::move(request), status, nullptr);
  sink->Flush();
}

}  // namespace

Engine::Engine(EngineOptions options, Clock* clock)
    : clock_(*clock),
      buffers_(options.buffers),
      policy_({.slack_ns = kSlackNs, .shortest_wait_ns = kShortestWaitNs, .short_run_ns = kShortRunNs}),
      limiter_(std::move(options.resources)),
      backends_({.plugin_directory = std::move(options.plugin_directory),
                 .parameters = std::move(options.backend_parameters),
                 .clock = clock,
                 .caller = this}),
      response_cache_(options.response_cache, clock) {}

Status Engine::OpenModel(const std::string& backend, const OpenOptions& options, std::shared_ptr<BackendModel>* model) {
  Backend* found = nullptr;
  if (Status status = backends_.Get(backend, &found); !status.ok()) return status;
  std::unique_ptr<BackendModel> opened;
  if (Status status = found->OpenModel(options, &opened); !status.ok()) return status;
  *model = std::move(opened);
  return Status::Ok();
}

Status Engine::Create(BatchedServableOptions options, std::shared_ptr<BackendModel> model,
                      std::shared_ptr<Servable>* servable) {
  if (options.config.sequence) return SequenceServable::Create(std::move(options), std::move(model), servable);
  if (options.config.cache) {
    return CachedServable::Create(std::move(options), std::move(model), &response_cache_, servable);
  }
  return BatchedServable::Create(std::move(options), std::move(model), servable);
}

Status Engine::Load(std::shared_ptr<BackendModel> model, ModelConfig config, std::shared_ptr<Servable>* servable) {
  if (Status status = CheckConfig(config); !status.ok()) return status;
  std::shared_ptr<Servable> created;
  BatchedServableOptions options{.config = std::move(config),
                                 .clock = &clock_,
                                 .policy = &policy_,
                                 .limiter = &limiter_,
                                 .short_run_ns = kShortRunNs};
  if (Status status = Create(std::move(options), std::move(model), &created); !status.ok()) return status;
  Remember(created);
  *servable = std::move(created);
  return Status::Ok();
}

Status Engine::LoadEnsemble(ModelConfig config, std::shared_ptr<Servable>* servable) {
  if (Status status = CheckConfig(config); !status.ok()) return status;
  std::shared_ptr<Servable> created;
  EnsembleServableOptions options{
      .config = std::move(config), .clock = &clock_, .versions = &versions_, .buffers = &buffers_, .sink = &step_sink_};
  if (Status status = EnsembleServable::Create(std::move(options), &created); !status.ok()) return status;
  Remember(created);
  *servable = std::move(created);
  return Status::Ok();
}

void Engine::Remember(const std::shared_ptr<Servable>& servable) {
  MutexLock lock(mu_);
  std::erase_if(loaded_, [](const auto& entry) { return entry.second.expired(); });
  loaded_.insert_or_assign(servable.get(), servable);
}

void Engine::Infer(std::span<std::unique_ptr<InferRequest>> requests, MayRun may_run) {
  std::shared_ptr<Servable> to_wake, servable;
  for (std::unique_ptr<InferRequest>& request : requests) {
    const Status status = Admit(&request, &servable);
    if (!status.ok()) {
      Refuse(std::move(request), status);
    } else if (servable != to_wake) {
      if (to_wake != nullptr) to_wake->Wake(may_run);
      to_wake = std::move(servable);
    }
  }
  if (to_wake != nullptr) to_wake->Wake(may_run);
}

void Engine::Call(ModelCall call, Done done) {
  const int64_t now_ns = clock_.NowNs();
  std::unique_ptr<InferRequest> request = ModelCallSink::MakeRequest(std::move(call), std::move(done), &call_sink_);
  request->arrival_ns = now_ns;
  std::shared_ptr<Servable> servable;
  if (Status status = Place(&request, &servable); !status.ok()) return Refuse(std::move(request), status);
  servable->Wake(MayRun::kNo);
}

void Engine::Cancel(InferRequest* request) {
  request->cancelled = true;
  const std::shared_ptr<Servable> servable = FindLoaded(request->servable);
  if (servable == nullptr) return;
  Status status;
  std::unique_ptr<InferRequest> removed = servable->Remove(request, &status);
  if (removed != nullptr) Refuse(std::move(removed), status);
}

std::shared_ptr<Servable> Engine::FindLoaded(const Servable* servable) {
  MutexLock lock(mu_);
  const auto found = loaded_.find(servable);
  return found == loaded_.end() ? nullptr : found->second.lock();
}

Status Engine::Admit(std::unique_ptr<InferRequest>* request, std::shared_ptr<Servable>* servable) {
  if (Status status = DecodeInferRequest(request->get(), &buffers_); !status.ok()) return status;
  return Place(request, servable);
}

Status Engine::Place(std::unique_ptr<InferRequest>* request, std::shared_ptr<Servable>* servable) {
  // A version found in the table may be closed by a swap before the request is in its queue; the table then already
  // names its successor. Every round needs another swap to fail, so a few are plenty.
  constexpr int kRounds = 16;
  for (int round = 0; round < kRounds; ++round) {
    Status status = versions_.Find((*request)->model_name, (*request)->model_version, servable);
    if (!status.ok()) return status;
    switch ((*servable)->Enqueue(request, &status)) {
      case Servable::Admitted::kYes:
        return Status::Ok();
      case Servable::Admitted::kRefused:
        return status;
      case Servable::Admitted::kClosed:
        break;
    }
  }
  return Unavailable("model '" + std::string((*request)->model_name) + "' is being replaced; retry");
}

}  // namespace gristmill
