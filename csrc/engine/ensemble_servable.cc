// SPDX-License-Identifier: Apache-2.0
#include "engine/ensemble_servable.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace gristmill {

struct EnsembleServable::Run : public std::enable_shared_from_this<Run> {
  struct Step {
    bool is_begun = false;
    const InferRequest* in_flight = nullptr;
    std::shared_ptr<Servable> servable;  // who has it
  };

  std::shared_ptr<EnsembleServable> ensemble;
  std::unique_ptr<InferRequest> request;
  std::vector<uint8_t> needed;  // by tensor

  Mutex mu;
  std::vector<KeptTensor> tensors GUARDED_BY(mu);  // no data type: not there yet
  std::vector<Step> steps GUARDED_BY(mu);
  size_t running GUARDED_BY(mu) = 0;
  bool is_over GUARDED_BY(mu) = false;
  Status failure GUARDED_BY(mu);
};

void StepSink::Complete(std::unique_ptr<InferRequest> request, const Status& status, const InferResponse* response) {
  const auto run = static_cast<EnsembleServable::Run*>(request->servable_state)->shared_from_this();
  run->ensemble->Complete(run, std::move(request), status, response);
}

void StepSink::FlushLater(ResponseSink* sink) {
  MutexLock lock(mu_);
  if (std::ranges::find(unflushed_, sink) == unflushed_.end()) unflushed_.push_back(sink);
}

void StepSink::WakeLater(std::shared_ptr<Servable> servable) {
  MutexLock lock(mu_);
  if (std::ranges::find(to_wake_, servable) == to_wake_.end()) to_wake_.push_back(std::move(servable));
}

void StepSink::Wake(MayRun may_run) {
  std::vector<std::shared_ptr<Servable>> to_wake;
  {
    MutexLock lock(mu_);
    to_wake.swap(to_wake_);
  }
  for (const auto& servable : to_wake) servable->Wake(may_run);
}

void StepSink::Flush() {
  std::vector<ResponseSink*> sinks;
  {
    MutexLock lock(mu_);
    sinks.swap(unflushed_);
  }
  for (ResponseSink* sink : sinks) sink->Flush();
  Wake(MayRun::kNo);
}

EnsembleServable::EnsembleServable(EnsembleServableOptions options, EnsemblePlan plan)
    : Servable(std::move(options.config)),
      clock_(*options.clock),
      versions_(*options.versions),
      buffers_(*options.buffers),
      sink_(*options.sink),
      plan_(std::move(plan)),
      admission_(config()) {}

EnsembleServable::~EnsembleServable() { Drain(); }

Status EnsembleServable::Create(EnsembleServableOptions options, std::shared_ptr<Servable>* servable) {
  EnsemblePlan plan;
  if (Status status = EnsemblePlan::Make(options.config, &plan); !status.ok()) return status;
  servable->reset(new EnsembleServable(std::move(options), std::move(plan)));
  return Status::Ok();
}

Servable::Admitted EnsembleServable::Enqueue(std::unique_ptr<InferRequest>* request, Status* status) {
  InferRequest& incoming = **request;
  if (incoming.sequence.is_set()) {
    *status = InvalidArgument("model '" + config().name + "' is an ensemble, which takes no sequence_id");
  } else {
    *status = admission_.Admit(&incoming);
  }
  if (status->ok() && incoming.cancelled) *status = Cancelled("the caller cancelled the request");
  if (!status->ok()) {
    statistics_.RecordFailures(1, clock_.NowNs() - incoming.arrival_ns);
    return Admitted::kRefused;
  }
  auto run = std::make_shared<Run>();
  run->ensemble = shared_from_this();
  run->needed = plan_.Needed(incoming.output_indices);
  {
    MutexLock lock(run->mu);
    run->tensors.resize(plan_.tensors());
    run->steps.resize(plan_.steps().size());
    for (size_t i = 0; i < incoming.ordered_inputs.size(); ++i) run->tensors[i].view = incoming.ordered_inputs[i];
  }
  {
    MutexLock lock(mu_);
    if (closed_) return Admitted::kClosed;
    incoming.servable = this;
    incoming.enqueue_ns = clock_.NowNs();
    pending_.fetch_add(1, std::memory_order_relaxed);
    ++unanswered_;
    runs_.emplace(&incoming, run);
    run->request = std::move(*request);
  }
  Advance(run);
  return Admitted::kYes;
}

void EnsembleServable::Advance(const std::shared_ptr<Run>& run) {
  std::vector<size_t> ready;
  {
    MutexLock lock(run->mu);
    if (run->is_over) return;
    for (size_t i = 0; run->failure.ok() && i < plan_.steps().size(); ++i) {
      const EnsemblePlan::Step& step = plan_.steps()[i];
      const auto is_needed = [&](const EnsemblePlan::Tensor& tensor) { return run->needed[tensor.number] != 0; };
      const auto is_there = [&](const EnsemblePlan::Tensor& tensor) REQUIRES(run->mu) {
        return run->tensors[tensor.number].view.dtype != DataType::kInvalid;
      };
      if (run->steps[i].is_begun || std::ranges::none_of(step.outputs, is_needed)) continue;
      if (!std::ranges::all_of(step.inputs, is_there)) continue;
      run->steps[i].is_begun = true;
      ready.push_back(i);
    }
    run->running += ready.size();
    run->is_over = run->running == 0;
    if (!run->is_over && ready.empty()) return;
  }
  if (ready.empty()) return Answer(run);
  for (size_t step : ready) HandOn(run, step);
}

std::unique_ptr<InferRequest> EnsembleServable::MakeRequest(Run* run, size_t index) {
  const EnsemblePlan::Step& step = plan_.steps()[index];
  auto request = std::make_unique<InferRequest>();
  request->sink = &sink_;
  request->ticket = index;
  request->servable_state = run;
  request->arrival_ns = clock_.NowNs();
  request->deadline_ns = run->request->deadline_ns;
  request->model_name = step.model;
  request->model_version = step.version;
  request->id = run->request->id;
  request->timeout_us = run->request->timeout_us;
  request->priority = run->request->priority;
  request->waiting_models = run->request->waiting_models;
  for (const EnsemblePlan::Tensor& output : step.outputs) {
    if (run->needed[output.number] != 0) request->requested_outputs.push_back(output.name);
  }
  MutexLock lock(run->mu);
  for (const EnsemblePlan::Tensor& input : step.inputs) {
    request->inputs.push_back({input.name, run->tensors[input.number].view});
  }
  run->steps[index].in_flight = request.get();
  return request;
}

void EnsembleServable::HandOn(const std::shared_ptr<Run>& run, size_t step) {
  std::unique_ptr<InferRequest> request = MakeRequest(run.get(), step);
  Status status = Unavailable("model '" + plan_.steps()[step].model + "' is being replaced; retry");
  constexpr int kRounds = 16;  // as many swaps would have to come in between
  for (int round = 0; round < kRounds; ++round) {
    std::shared_ptr<Servable> servable;
    if (Status found = versions_.Find(request->model_name, request->model_version, &servable); !found.ok()) {
      status = std::move(found);
      break;
    }
    {
      MutexLock lock(run->mu);
      run->steps[step].servable = servable;
    }
    const Admitted admitted = servable->Enqueue(&request, &status);
    if (admitted == Admitted::kYes) return sink_.WakeLater(std::move(servable));
    if (admitted == Admitted::kRefused) break;
  }
  EndStep(run, step, status, {});
}

void EnsembleServable::Complete(const std::shared_ptr<Run>& run, std::unique_ptr<InferRequest> request, Status status,
                                const InferResponse* response) {
  std::vector<KeptTensor> made;
  if (response != nullptr) {
    for (const OutputTensor& output : response->outputs) {
      KeptTensor kept{.view = output.tensor, .bytes = buffers_.TryAcquire(output.tensor.data.size())};
      if (kept.bytes.is_null()) {
        status =
            ResourceExhausted("tensors between the steps of ensembles fill the server's memory for them; retry later");
        break;
      }
      if (!output.tensor.data.empty())
        std::memcpy(kept.bytes.data(), output.tensor.data.data(), output.tensor.data.size());
      kept.view.data = kept.bytes.view();
      made.push_back(std::move(kept));
    }
  }
  EndStep(run, static_cast<size_t>(request->ticket), status, std::move(made));
}

void EnsembleServable::EndStep(const std::shared_ptr<Run>& run, size_t index, const Status& status,
                               std::vector<KeptTensor> made) {
  const EnsemblePlan::Step& step = plan_.steps()[index];
  bool fails = false;
  {
    MutexLock lock(run->mu);
    run->steps[index].in_flight = nullptr;
    run->steps[index].servable = nullptr;
    --run->running;
    if (!status.ok()) {
      fails = run->failure.ok();
      if (fails) {
        run->failure =
            Status(status.code(), "step '" + step.model + "' of ensemble '" + config().name + "': " + status.message());
      }
    } else {
      size_t next = 0;
      for (const EnsemblePlan::Tensor& output : step.outputs) {
        if (run->needed[output.number] != 0) run->tensors[output.number] = std::move(made[next++]);
      }
    }
  }
  if (fails) TakeBack(run);
  Advance(run);
}

void EnsembleServable::TakeBack(const std::shared_ptr<Run>& run) {
  std::vector<std::unique_ptr<InferRequest>> taken;
  Status status;
  {
    MutexLock lock(run->mu);  // while it is held, no step in flight can go
    for (Run::Step& step : run->steps) {
      if (step.in_flight == nullptr || step.servable == nullptr) continue;
      if (auto request = step.servable->Remove(step.in_flight, &status)) taken.push_back(std::move(request));
    }
  }
  for (const auto& request : taken) EndStep(run, static_cast<size_t>(request->ticket), status, {});
}

std::unique_ptr<InferRequest> EnsembleServable::Remove(const InferRequest* request, Status*) {
  std::shared_ptr<Run> run;
  {
    MutexLock lock(mu_);
    const auto found = runs_.find(request);
    if (found == runs_.end()) return nullptr;
    run = found->second;
  }
  {
    MutexLock lock(run->mu);
    if (run->is_over || !run->failure.ok()) return nullptr;
    run->failure = request->deadline_ns <= clock_.NowNs()
                       ? DeadlineExceeded("the deadline passed before the ensemble '" + config().name + "' was done")
                       : Cancelled("the caller cancelled the request");
  }
  TakeBack(run);
  sink_.Flush();
  return nullptr;  // it is answered by its last step
}

void EnsembleServable::Answer(const std::shared_ptr<Run>& run) {
  std::vector<OutputTensor> outputs;
  Status status;
  std::unique_ptr<InferRequest> request;
  {
    MutexLock lock(run->mu);
    status = run->failure;
    for (uint32_t index : run->request->output_indices) {
      if (status.ok()) outputs.push_back({config().outputs[index].name, run->tensors[plan_.outputs()[index]].view});
    }
    request = std::move(run->request);
  }
  const int64_t request_ns = clock_.NowNs() - request->arrival_ns;
  if (status.ok()) {
    statistics_.RecordEnsemble(clock_.WallMs(), request->rows, request_ns);
  } else {
    statistics_.RecordFailures(1, request_ns);
  }
  {
    // Before the answer: the request's owner may send another at the same address as soon as he has it.
    MutexLock lock(mu_);
    runs_.erase(request.get());
  }
  const InferResponse response{
      .model_name = config().name, .model_version = version_text(), .id = request->id, .outputs = outputs};
  ResponseSink* sink = request->sink;
  pending_.fetch_sub(1, std::memory_order_relaxed);
  sink->Complete(std::move(request), status, status.ok() ? &response : nullptr);
  sink_.FlushLater(sink);
  MutexLock lock(mu_);
  if (--unanswered_ == 0) all_answered_.NotifyAll();
}

void EnsembleServable::Drain() {
  MutexLock lock(mu_);
  closed_ = true;
  while (unanswered_ > 0) all_answered_.Wait(mu_);
}

}  // namespace gristmill
