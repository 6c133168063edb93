// SPDX-License-Identifier: Apache-2.0
// Admission: checks a decoded request against a model's configuration and prepares it for batching.
//
// Thread-safety: const after construction, so any thread may admit.
// Errors: kInvalidArgument, naming model, tensor, expected and actual. On error the request can still be answered.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/infer_request.h"
#include "core/model_config.h"
#include "core/status.h"

namespace gristmill {

class Admission {
 public:
  explicit Admission(const ModelConfig& config);

  /// Sets rows, ordered_inputs and output_indices of the request.
  Status Admit(InferRequest* request) const;

  /// Equal for requests that may share a batch; a hash of the dimensions that the configuration leaves open.
  uint64_t GroupKey(const InferRequest& request) const;

  /// Whether two admitted requests agree in every dimension that the configuration leaves open.
  bool Compatible(const InferRequest& a, const InferRequest& b) const;

 private:
  struct OpenDimension {
    size_t input;
    size_t axis;
  };

  Status CheckInput(const InputTensor& input, const TensorSpec& spec) const;
  Status SelectOutputs(InferRequest* request) const;
  Status SetRows(InferRequest* request) const;
  std::string Expected(const TensorSpec& spec) const;

  const ModelConfig config_;
  std::vector<OpenDimension> open_dimensions_;
};

}  // namespace gristmill
