// SPDX-License-Identifier: Apache-2.0
#include "engine/model_call_sink.h"

#include <utility>

namespace gristmill {
namespace {

struct PendingCall {
  ModelCall call;
  ModelCaller::Done done;
};

}  // namespace

std::unique_ptr<InferRequest> ModelCallSink::MakeRequest(ModelCall call, ModelCaller::Done done, ModelCallSink* sink) {
  auto pending = std::make_unique<PendingCall>(PendingCall{.call = std::move(call), .done = std::move(done)});
  auto request = std::make_unique<InferRequest>();
  const ModelCall& made = pending->call;
  request->sink = sink;
  request->deadline_ns = made.deadline_ns;
  request->model_name = made.model;
  request->model_version = made.version;
  request->id = made.id;
  for (const ModelCall::Input& input : made.inputs) request->inputs.push_back({input.name, input.tensor});
  for (const std::string& output : made.outputs) request->requested_outputs.push_back(output);
  request->timeout_us = made.timeout_us;
  request->priority = made.priority;
  request->sequence = made.sequence;
  request->sequence.name = made.sequence_name;
  request->waiting_models = made.waiting_models;
  request->ticket = reinterpret_cast<uint64_t>(pending.release());
  return request;
}

void ModelCallSink::Complete(std::unique_ptr<InferRequest> request, const Status& status,
                             const InferResponse* response) {
  const std::unique_ptr<PendingCall> pending(reinterpret_cast<PendingCall*>(request->ticket));
  pending->done(status, response);
  request.reset();  // its names are the call's
}

}  // namespace gristmill
