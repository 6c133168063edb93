// SPDX-License-Identifier: Apache-2.0
#include "engine/sequence_inputs.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>

namespace gristmill {
namespace {

template <typename T>
std::vector<std::byte> BytesOf(T value) {
  std::vector<std::byte> bytes(sizeof value);
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

/// Of the types that a control may have.
std::vector<std::byte> ControlValue(DataType dtype, double value) {
  switch (dtype) {
    case DataType::kFp32:
      return BytesOf(static_cast<float>(value));
    case DataType::kInt32:
      return BytesOf(static_cast<int32_t>(value));
    case DataType::kBool:
      return BytesOf(static_cast<uint8_t>(value != 0));
    default:
      return {};
  }
}

Shape WithBatchOfOne(const std::vector<int64_t>& dims, bool has_batch) {
  Shape shape;
  if (has_batch) shape.PushBack(1);
  for (int64_t dim : dims) shape.PushBack(dim);
  return shape;
}

std::vector<std::byte> AsElement(std::string_view text) {
  std::vector<std::byte> bytes = BytesOf(static_cast<uint32_t>(text.size()));
  const auto content = std::as_bytes(std::span(text));
  bytes.insert(bytes.end(), content.begin(), content.end());
  return bytes;
}

}  // namespace

SequenceInputs::SequenceInputs(const ModelConfig& config) : config_(config) {
  for (const ControlInput& control : config.sequence->controls) {
    controls_.push_back({.kind = control.kind,
                         .name = control.tensor.name,
                         .dtype = control.tensor.dtype,
                         .shape = WithBatchOfOne(control.tensor.dims, config.max_batch_size > 0),
                         .no = ControlValue(control.tensor.dtype, control.off),
                         .yes = ControlValue(control.tensor.dtype, control.on)});
  }
}

ModelConfig SequenceInputs::WithSequenceTensors(const ModelConfig& config) {
  ModelConfig all = config;
  for (const ControlInput& control : config.sequence->controls) all.inputs.push_back(control.tensor);
  for (const StateTensor& state : config.sequence->states) {
    all.inputs.push_back(state.input);
    if (std::ranges::find(all.outputs, state.output_name, &TensorSpec::name) == all.outputs.end()) {
      all.outputs.push_back({state.output_name, state.input.dtype, state.input.dims});
    }
  }
  return all;
}

Status SequenceInputs::Name(const SequenceTag& tag, SequenceValues* values) const {
  const auto control = std::ranges::find(controls_, ControlInput::Kind::kCorrelationId, &Control::kind);
  if (control == controls_.end()) return Status::Ok();
  if (control->dtype == DataType::kBytes) {
    values->correlation_id = AsElement(tag.name.empty() ? std::to_string(tag.number) : std::string(tag.name));
    return Status::Ok();
  }
  const std::string model = "model '" + config_.name + "' takes sequence ids as ";
  if (!tag.name.empty()) {
    return InvalidArgument(model + std::string(DataTypeName(control->dtype)) + ", not the text '" +
                           std::string(tag.name) + "'");
  }
  const bool is_signed = control->dtype == DataType::kInt64 || control->dtype == DataType::kInt32;
  const size_t size = ElementSizeBytes(control->dtype);
  const uint64_t most = std::numeric_limits<uint64_t>::max() >> (64 - 8 * size + (is_signed ? 1 : 0));
  if (tag.number > most) {
    return InvalidArgument(model + std::string(DataTypeName(control->dtype)) + ", which cannot hold " +
                           std::to_string(tag.number));
  }
  values->correlation_id = BytesOf(tag.number);
  values->correlation_id.resize(size);  // little-endian
  return Status::Ok();
}

void SequenceInputs::Reset(SequenceValues* values) const {
  values->states.clear();
  for (const StateTensor& state : config_.sequence->states) {
    const auto bytes = std::as_bytes(std::span(state.initial_data));
    values->states.push_back({.shape = WithBatchOfOne(state.initial_dims, config_.max_batch_size > 0),
                              .data = std::vector<std::byte>(bytes.begin(), bytes.end())});
  }
}

void SequenceInputs::Append(const SequenceValues& values, bool starts, bool ends, InferRequest* request) const {
  for (const Control& control : controls_) {
    std::span<const std::byte> data = values.correlation_id;
    if (control.kind == ControlInput::Kind::kStart) data = starts ? control.yes : control.no;
    if (control.kind == ControlInput::Kind::kEnd) data = ends ? control.yes : control.no;
    if (control.kind == ControlInput::Kind::kReady) data = control.yes;
    request->inputs.push_back({control.name, {control.dtype, control.shape, data}});
  }
  const std::vector<StateTensor>& states = config_.sequence->states;
  for (size_t i = 0; i < states.size(); ++i) {
    const SequenceValues::State& state = values.states[i];
    request->inputs.push_back({states[i].input.name, {states[i].input.dtype, state.shape, state.data}});
  }
  if (request->requested_outputs.empty()) return;
  for (const StateTensor& state : states) request->requested_outputs.push_back(state.output_name);
}

void SequenceInputs::Remove(size_t inputs, size_t requested_outputs, InferRequest* request) const {
  request->inputs.resize(inputs);
  request->requested_outputs.resize(requested_outputs);
}

void SequenceInputs::Keep(std::span<const OutputTensor> outputs, SequenceValues* values) const {
  const std::vector<StateTensor>& states = config_.sequence->states;
  for (size_t i = 0; i < states.size(); ++i) {
    const auto output = std::ranges::find(outputs, states[i].output_name, &OutputTensor::name);
    if (output == outputs.end()) continue;
    values->states[i].shape = output->tensor.shape;
    values->states[i].data.assign(output->tensor.data.begin(), output->tensor.data.end());
  }
}

}  // namespace gristmill
