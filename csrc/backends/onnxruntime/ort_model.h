// SPDX-License-Identifier: Apache-2.0
// OrtModel: one ONNX file, one session, shared by all its instances: a session's Run is thread-safe.
#pragma once

#include <memory>

#include "backends/onnxruntime/ort_api.h"
#include "core/backend.h"

namespace gristmill {

/// What the backend lends to its models; outlives them.
struct OrtContext {
  const OrtApi& api;
  OrtEnv* env;
  Clock& clock;
  int inter_op_threads;
};

class OrtModel final : public BackendModel {
 public:
  /// Parameters: graph_optimization_level (disable, basic, extended, all), execution_mode (sequential, parallel),
  /// enable_mem_pattern (true, false).
  static Status Open(const OrtContext& context, const OpenOptions& options, std::unique_ptr<BackendModel>* model);

  const ModelSignature& signature() const override { return signature_; }
  Status CreateInstance(const ModelConfig& config, std::unique_ptr<BackendInstance>* instance) override;

 private:
  explicit OrtModel(const OrtContext& context) : context_(context), session_(context.api) {}

  Status ReadSignature();
  Status ReadTensor(bool input, size_t index, TensorSpec* spec) const;

  const OrtContext context_;
  OrtSessionHandle session_;
  ModelSignature signature_;
};

}  // namespace gristmill
