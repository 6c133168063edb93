// SPDX-License-Identifier: Apache-2.0
// EnsemblePlan: the steps of an ensemble with its tensors as numbers, and which of them a set of outputs needs.
//
// Thread-safety: const once it is made.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/model_config.h"
#include "core/status.h"

namespace gristmill {

class EnsemblePlan {
 public:
  struct Tensor {
    std::string name;  // the model's
    size_t number = 0;
  };
  struct Step {
    std::string model;
    std::string version;
    std::vector<Tensor> inputs;
    std::vector<Tensor> outputs;
  };

  /// kInvalidArgument, naming step and tensor: one that nobody makes before it is taken, one that two make, an output
  /// of the ensemble that nobody makes.
  static Status Make(const ModelConfig& config, EnsemblePlan* plan);

  const std::vector<Step>& steps() const { return steps_; }
  size_t tensors() const { return names_.size(); }

  /// The first tensors are the inputs, in the order of the configuration.
  const std::vector<size_t>& outputs() const { return outputs_; }

  /// Which tensors are needed for the outputs of these indices, as 0 or 1 by number.
  std::vector<uint8_t> Needed(std::span<const uint32_t> output_indices) const;

 private:
  size_t NumberOf(const std::string& name) const;

  std::vector<std::string> names_;
  std::vector<Step> steps_;
  std::vector<size_t> outputs_;
};

}  // namespace gristmill
