// SPDX-License-Identifier: Apache-2.0
// Backend, BackendModel, BackendInstance: the seam between the engine and whatever executes models.
//
// Order of calls: Backend::OpenModel -> BackendModel::CreateInstance (once per executor) -> BackendInstance::Execute
// (any number of times). Instances are destroyed before their model, models before their backend. Thread-safety:
// Backend and BackendModel are thread-safe. An instance is used by one thread at a time, its executor's. Blocking:
// OpenModel and CreateInstance may take seconds; Execute takes as long as the model does. Errors: a failed call leaves
// its out-parameter alone and the backend usable. No exception leaves a backend.
//
// A plugin is a shared library that exports `gristmill_create_backend`, a CreateBackendFunction.
//
//   std::unique_ptr<BackendModel> model;
//   Status status = backend->OpenModel({.path = "m/1/model.onnx"}, &model);
//   std::unique_ptr<BackendInstance> instance;
//   status = model->CreateInstance(config, &instance);
//   BatchResult result;
//   status = instance->Execute(batch, &result);
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/clock.h"
#include "core/model_caller.h"
#include "core/model_config.h"
#include "core/status.h"
#include "core/tensor.h"

namespace gristmill {

/// Where a decoupled model sends the answers to one request, as many as it likes, also when Execute has returned.
/// Thread-safety: one thread at a time. It is ended exactly once; whoever lets go of it before that has failed.
class AnswerStream {
 public:
  virtual ~AnswerStream() = default;

  /// `outputs` in the order of ModelConfig::outputs, without a data type where there is none; borrowed.
  virtual void Send(std::span<const TensorView> outputs) = 0;

  /// No answer comes any more. An error is the last answer.
  virtual void End(const Status& status) = 0;

  /// Whether nobody waits for answers any more.
  virtual bool is_cancelled() const = 0;
};

/// One request's share of a batch. `inputs` are in the order of ModelConfig::inputs, and their shapes include the batch
/// dimension, of `rows`, when the model has one. Already checked against the configuration.
struct BatchItem {
  std::span<const TensorView> inputs;
  int64_t rows = 1;
  const InferRequest* request = nullptr;  // whose it is, for models that want to know; null: nobody's
  /// Of a decoupled model, and only of that.
  std::shared_ptr<AnswerStream> answers = nullptr;
};

/// Items to be run together: all inputs agree in every dimension but the first. A model without a batch dimension
/// always gets exactly one item.
struct Batch {
  std::span<const BatchItem> items;
  int64_t total_rows = 0;
};

/// One output for the whole batch, with the shape that the model actually produced. For kBytes, `data` is the
/// protocol's raw form and `row_offsets` has one byte offset per row of the first dimension plus one for the end;
/// otherwise `row_offsets` is empty.
struct BatchOutput {
  TensorView tensor;
  std::span<const size_t> row_offsets;
};

/// The answer to one item. `outputs` are in the order of ModelConfig::outputs, without a data type where the model has
/// given none.
struct ItemAnswer {
  Status status;
  std::vector<TensorView> outputs;
};

/// Outputs in the order of ModelConfig::outputs, borrowed from the instance until its next Execute or its destruction.
/// Times on the backend's clock: gather began, execution began, execution ended.
struct BatchResult {
  std::vector<BatchOutput> outputs;
  /// In place of `outputs` from models that answer each item by itself: one for each.
  std::vector<ItemAnswer> items;
  int64_t gather_start_ns = 0;
  int64_t execute_start_ns = 0;
  int64_t execute_end_ns = 0;
};

class BackendInstance {
 public:
  virtual ~BackendInstance() = default;

  /// Gathers the items' inputs into one batch, runs the model, and fills `result`.
  /// Errors: whatever the runtime says, as kInternal, or kInvalidArgument where the input's content is to blame.
  virtual Status Execute(const Batch& batch, BatchResult* result) = 0;
};

class BackendModel {
 public:
  virtual ~BackendModel() = default;

  /// Whether Execute waits for somebody else's work, so that its thread's time says nothing of how long it takes.
  virtual bool waits() const { return false; }

  /// What the model file says of itself.
  virtual const ModelSignature& signature() const = 0;

  /// An executor's own state. `config` has been checked against the signature by CheckAgainstSignature.
  virtual Status CreateInstance(const ModelConfig& config, std::unique_ptr<BackendInstance>* instance) = 0;
};

struct OpenOptions {
  std::string path;       // the model file
  Parameters parameters;  // the model's own; unknown names are an error that lists the known ones
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::string_view name() const = 0;

  /// The runtime's version, for people.
  virtual std::string version() const = 0;

  virtual Status OpenModel(const OpenOptions& options, std::unique_ptr<BackendModel>* model) = 0;
};

struct BackendOptions {
  Clock* clock = nullptr;  // outlives the backend
  Parameters parameters;   // server-wide, "library_path" or "intra_op_threads" say
  /// Outlives the backend. Null: models cannot call others.
  ModelCaller* caller = nullptr;
};

/// Bumped whenever anything in this header or in what it includes changes layout.
inline constexpr int kBackendAbiVersion = 3;

/// Refuses another `abi_version` than its own with kFailedPrecondition.
using CreateBackendFunction = Status (*)(int abi_version, const BackendOptions& options,
                                         std::unique_ptr<Backend>* backend);

}  // namespace gristmill
