// SPDX-License-Identifier: Apache-2.0
#include "engine/ensemble_plan.h"

#include <algorithm>

namespace gristmill {

size_t EnsemblePlan::NumberOf(const std::string& name) const {
  return static_cast<size_t>(std::ranges::find(names_, name) - names_.begin());
}

Status EnsemblePlan::Make(const ModelConfig& config, EnsemblePlan* plan) {
  EnsemblePlan made;
  for (const TensorSpec& input : config.inputs) made.names_.push_back(input.name);
  for (const EnsembleStep& step : config.steps) {
    const auto refuse = [&](const std::string& what) {
      return InvalidArgument("step '" + step.model + "' of ensemble '" + config.name + "': " + what);
    };
    Step planned{.model = step.model, .version = step.version, .inputs = {}, .outputs = {}};
    for (const auto& [name, tensor] : step.inputs) {
      const size_t number = made.NumberOf(tensor);
      if (number == made.names_.size()) return refuse("no step before it makes its input '" + tensor + "'");
      planned.inputs.push_back({name, number});
    }
    for (const auto& [name, tensor] : step.outputs) {
      if (made.NumberOf(tensor) != made.names_.size()) return refuse("its output '" + tensor + "' is there already");
      planned.outputs.push_back({name, made.names_.size()});
      made.names_.push_back(tensor);
    }
    made.steps_.push_back(std::move(planned));
  }
  for (const TensorSpec& output : config.outputs) {
    const size_t number = made.NumberOf(output.name);
    if (number == made.names_.size()) {
      return InvalidArgument("ensemble '" + config.name + "': no step makes its output '" + output.name + "'");
    }
    made.outputs_.push_back(number);
  }
  *plan = std::move(made);
  return Status::Ok();
}

std::vector<uint8_t> EnsemblePlan::Needed(std::span<const uint32_t> output_indices) const {
  std::vector<uint8_t> needed(names_.size());
  for (uint32_t index : output_indices) needed[outputs_[index]] = 1;
  for (auto step = steps_.rbegin(); step != steps_.rend(); ++step) {
    const bool runs =
        std::ranges::any_of(step->outputs, [&](const Tensor& tensor) { return needed[tensor.number] != 0; });
    for (const Tensor& input : step->inputs) {
      if (runs) needed[input.number] = 1;
    }
  }
  return needed;
}

}  // namespace gristmill
