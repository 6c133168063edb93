// SPDX-License-Identifier: Apache-2.0
// Engine: the rooms joined: received bytes go in, every one of them comes out through its sink exactly once.
//
// Order of calls: OpenModel -> Load -> Publish; Infer at any time, from any thread; Drain on a servable that has been
// unpublished. The engine outlives every request given to it.
// Thread-safety: thread-safe.
// Blocking: Infer never blocks; OpenModel and Load take as long as the backend does.
//
//   Engine engine({.plugin_directory = "…/backends"}, &SystemClock());
//   engine.Infer(requests);   // of each, received, sink and arrival_ns are set
//   engine.Cancel(request);   // at any time until the sink has given it back
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>

#include "batching/adaptive_batch_policy.h"
#include "core/backend.h"
#include "core/buffer.h"
#include "core/clock.h"
#include "core/infer_request.h"
#include "core/model_caller.h"
#include "core/model_config.h"
#include "core/mutex.h"
#include "core/status.h"
#include "engine/backend_registry.h"
#include "engine/batched_servable.h"
#include "engine/ensemble_servable.h"
#include "engine/model_call_sink.h"
#include "engine/rate_limiter.h"
#include "engine/response_cache.h"
#include "engine/servable.h"
#include "engine/version_table.h"

namespace gristmill {

struct EngineOptions {
  std::string plugin_directory;
  std::map<std::string, Parameters> backend_parameters;  // by backend
  BufferPoolOptions buffers;
  ResponseCacheOptions response_cache;
  std::map<std::string, int64_t> resources;  // what there is of what models need for a run
};

class Engine : private ModelCaller {
 public:
  /// `clock` outlives the engine.
  Engine(EngineOptions options, Clock* clock);

  /// Loads the backend's plugin if need be.
  Status GetBackend(const std::string& name, Backend** backend) { return backends_.Get(name, backend); }
  Status OpenModel(const std::string& backend, const OpenOptions& options, std::shared_ptr<BackendModel>* model);

  /// Starts the executors of a version. kInvalidArgument if the configuration contradicts itself.
  Status Load(std::shared_ptr<BackendModel> model, ModelConfig config, std::shared_ptr<Servable>* servable);

  /// The same for an ensemble, whose steps are found among what is published when they are run.
  Status LoadEnsemble(ModelConfig config, std::shared_ptr<Servable>* servable);

  void Publish(const std::string& model, ModelEntry entry) { versions_.Publish(model, std::move(entry)); }
  void Forget(const std::string& model) { versions_.Forget(model); }

  /// Takes the requests over: decodes, admits and queues each. Answers through its sink, now if it is refused.
  /// A front end hands over all that one turn of its loop has brought: executors are woken after the last request of
  /// a run to the same model, and so find a batch and not its first request. With kYes this thread may run a short
  /// batch itself and answer it before the call returns.
  void Infer(std::span<std::unique_ptr<InferRequest>> requests, MayRun may_run = MayRun::kNo);

  /// Gives up on a request, before Infer or after it. One that waits is answered at once, and its place is free for
  /// another; one that is being executed is answered as if nothing had happened. Only the front end that has made the
  /// request may call this, on the thread that calls Infer with it, and not once it has let the request go.
  void Cancel(InferRequest* request);

  Clock& clock() { return clock_; }
  BufferPool& buffers() { return buffers_; }
  ResponseCache::Usage cache_usage() const { return response_cache_.usage(); }

 private:
  Status Create(BatchedServableOptions options, std::shared_ptr<BackendModel> model,
                std::shared_ptr<Servable>* servable);
  /// The calls that models make.
  void Call(ModelCall call, Done done) override;

  /// `servable` is who has taken the request.
  Status Admit(std::unique_ptr<InferRequest>* request, std::shared_ptr<Servable>* servable);
  Status Place(std::unique_ptr<InferRequest>* request, std::shared_ptr<Servable>* servable);
  void Remember(const std::shared_ptr<Servable>& servable);
  /// Null if it is gone, and has answered all its requests.
  std::shared_ptr<Servable> FindLoaded(const Servable* servable);

  Clock& clock_;
  BufferPool buffers_;
  const AdaptiveBatchPolicy policy_;
  ModelCallSink call_sink_;
  RateLimiter limiter_;
  BackendRegistry backends_;
  ResponseCache response_cache_;
  StepSink step_sink_;
  VersionTable versions_;  // before the backends in destruction, since servables hold their models

  Mutex mu_;
  std::unordered_map<const Servable*, std::weak_ptr<Servable>> loaded_ GUARDED_BY(mu_);
};

}  // namespace gristmill
