// SPDX-License-Identifier: Apache-2.0
#include "engine/admission.h"

#include <algorithm>

namespace gristmill {
namespace {

template <typename Specs, typename Name>
size_t IndexOf(const Specs& specs, const Name& name) {
  return static_cast<size_t>(std::ranges::find(specs, name, &TensorSpec::name) - specs.begin());
}

std::string NamesOf(const std::vector<TensorSpec>& specs) {
  std::string names;
  for (const TensorSpec& spec : specs) names += (names.empty() ? "'" : ", '") + spec.name + "'";
  return names.empty() ? "none" : names;
}

}  // namespace

Admission::Admission(const ModelConfig& config) : config_(config) {
  const size_t first_axis = config_.max_batch_size > 0 ? 1 : 0;
  for (size_t input = 0; input < config_.inputs.size(); ++input) {
    const std::vector<int64_t>& dims = config_.inputs[input].dims;
    for (size_t i = 0; i < dims.size(); ++i) {
      if (dims[i] < 0) open_dimensions_.push_back({input, first_axis + i});
    }
  }
}

Status Admission::Admit(InferRequest* request) const {
  request->ordered_inputs.assign(config_.inputs.size(), TensorView{});
  for (const InputTensor& input : request->inputs) {
    const size_t index = IndexOf(config_.inputs, input.name);
    if (index == config_.inputs.size()) {
      return InvalidArgument("model '" + config_.name + "' has no input '" + std::string(input.name) +
                             "'; its inputs are " + NamesOf(config_.inputs));
    }
    if (request->ordered_inputs[index].dtype != DataType::kInvalid) {
      return InvalidArgument("input '" + std::string(input.name) + "' of model '" + config_.name + "' is given twice");
    }
    if (Status status = CheckInput(input, config_.inputs[index]); !status.ok()) return status;
    request->ordered_inputs[index] = input.tensor;
  }
  for (size_t i = 0; i < config_.inputs.size(); ++i) {
    if (request->ordered_inputs[i].dtype == DataType::kInvalid) {
      return InvalidArgument("model '" + config_.name + "' needs input '" + config_.inputs[i].name + "' (" +
                             Expected(config_.inputs[i]) + "), which the request does not have");
    }
  }
  if (Status status = SetRows(request); !status.ok()) return status;
  return SelectOutputs(request);
}

std::string Admission::Expected(const TensorSpec& spec) const {
  Shape shape;
  if (config_.max_batch_size > 0) shape.PushBack(-1);
  for (int64_t dim : spec.dims) shape.PushBack(dim);
  return std::string(DataTypeName(spec.dtype)) + shape.ToString();
}

Status Admission::CheckInput(const InputTensor& input, const TensorSpec& spec) const {
  const Shape& shape = input.tensor.shape;
  const size_t first_axis = config_.max_batch_size > 0 ? 1 : 0;
  bool matches = input.tensor.dtype == spec.dtype && shape.rank() == spec.dims.size() + first_axis;
  for (size_t i = 0; matches && i < spec.dims.size(); ++i) {
    matches = spec.dims[i] < 0 || spec.dims[i] == shape[first_axis + i];
  }
  if (matches) return Status::Ok();
  return InvalidArgument("model '" + config_.name + "' expects " + Expected(spec) + " for input '" + spec.name +
                         "' but got " + std::string(DataTypeName(input.tensor.dtype)) + shape.ToString());
}

Status Admission::SetRows(InferRequest* request) const {
  request->rows = 1;
  if (config_.max_batch_size == 0 || request->ordered_inputs.empty()) return Status::Ok();
  request->rows = request->ordered_inputs[0].shape[0];
  for (size_t i = 1; i < request->ordered_inputs.size(); ++i) {
    const int64_t rows = request->ordered_inputs[i].shape[0];
    if (rows != request->rows) {
      return InvalidArgument("the inputs of a request to model '" + config_.name +
                             "' must have the same batch dimension, but '" + config_.inputs[0].name + "' has " +
                             std::to_string(request->rows) + " rows and '" + config_.inputs[i].name + "' has " +
                             std::to_string(rows));
    }
  }
  if (request->rows >= 1 && request->rows <= config_.max_batch_size) return Status::Ok();
  return InvalidArgument("model '" + config_.name + "' takes 1 to " + std::to_string(config_.max_batch_size) +
                         " rows per request but got " + std::to_string(request->rows) +
                         "; split the request or raise max_batch_size");
}

Status Admission::SelectOutputs(InferRequest* request) const {
  request->output_indices.clear();
  if (request->requested_outputs.empty()) {
    for (uint32_t i = 0; i < config_.outputs.size(); ++i) request->output_indices.push_back(i);
    return Status::Ok();
  }
  for (std::string_view name : request->requested_outputs) {
    const size_t index = IndexOf(config_.outputs, name);
    if (index == config_.outputs.size()) {
      return InvalidArgument("model '" + config_.name + "' has no output '" + std::string(name) +
                             "'; its outputs are " + NamesOf(config_.outputs));
    }
    // Once, however often it is named: else a small request could ask for an answer of any size.
    if (std::ranges::find(request->output_indices, index) != request->output_indices.end()) continue;
    request->output_indices.push_back(static_cast<uint32_t>(index));
  }
  return Status::Ok();
}

uint64_t Admission::GroupKey(const InferRequest& request) const {
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a over whole dimensions
  for (const OpenDimension& dimension : open_dimensions_) {
    hash ^= static_cast<uint64_t>(request.ordered_inputs[dimension.input].shape[dimension.axis]);
    hash *= 0x100000001b3;
  }
  return hash;
}

bool Admission::Compatible(const InferRequest& a, const InferRequest& b) const {
  return std::ranges::all_of(open_dimensions_, [&](const OpenDimension& dimension) {
    return a.ordered_inputs[dimension.input].shape[dimension.axis] ==
           b.ordered_inputs[dimension.input].shape[dimension.axis];
  });
}

}  // namespace gristmill
