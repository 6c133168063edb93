// SPDX-License-Identifier: Apache-2.0
#include "backends/onnxruntime/ort_instance.h"

#include <array>
#include <cstring>
#include <utility>

#include "backends/plugin.h"

namespace gristmill {

Status OrtInstance::Create(const OrtContext& context, OrtSession* session, const ModelConfig& config,
                           std::unique_ptr<BackendInstance>* instance) {
  const OrtApi& api = context.api;
  const std::string doing = "model '" + config.name + "', creating an instance";
  std::unique_ptr<OrtInstance> created(new OrtInstance(context, session));
  GRISTMILL_RETURN_IF_ORT_FAILS(api, api.GetAllocatorWithDefaultOptions(&created->allocator_), doing);
  GRISTMILL_RETURN_IF_ORT_FAILS(
      api, api.CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, created->memory_info_.Receive()), doing);
  GRISTMILL_RETURN_IF_ORT_FAILS(api, api.CreateRunOptions(created->run_options_.Receive()), doing);
  // A failing run says so in its Status; a client must not be able to fill the log as well.
  GRISTMILL_RETURN_IF_ORT_FAILS(
      api, api.RunOptionsSetRunLogSeverityLevel(created->run_options_.get(), ORT_LOGGING_LEVEL_FATAL), doing);
  GRISTMILL_RETURN_IF_ORT_FAILS(api, api.CreateIoBinding(session, created->binding_.Receive()), doing);
  for (const TensorSpec& spec : config.inputs) {
    created->inputs_.push_back({.spec = spec, .buffer = {}, .value = OrtValueHandle(api), .bound = {}});
  }
  for (const TensorSpec& spec : config.outputs) {
    created->outputs_.push_back(
        {.spec = spec, .value = OrtValueHandle(api), .content = {}, .element_offsets = {}, .bytes = {}});
  }
  *instance = std::move(created);
  return Status::Ok();
}

Status OrtInstance::Execute(const Batch& batch, BatchResult* result) {
  return StopExceptions([&]() -> Status {
    const OrtApi& api = context_.api;
    result->gather_start_ns = context_.clock.NowNs();
    for (size_t i = 0; i < inputs_.size(); ++i) {
      const bool strings = inputs_[i].spec.dtype == DataType::kBytes;
      if (Status status = strings ? BindStrings(batch, i) : BindTensor(batch, i); !status.ok()) return status;
    }
    // Every time: a binding keeps the last run's output, and the next run would have to fit into it.
    for (Output& output : outputs_) {
      output.value.Reset(nullptr);
      GRISTMILL_RETURN_IF_ORT_FAILS(
          api, api.BindOutputToDevice(binding_.get(), output.spec.name.c_str(), memory_info_.get()),
          "binding output '" + output.spec.name + "'");
    }
    result->execute_start_ns = context_.clock.NowNs();
    GRISTMILL_RETURN_IF_ORT_FAILS(api, api.RunWithBinding(session_, run_options_.get(), binding_.get()),
                                  "running the model");
    result->execute_end_ns = context_.clock.NowNs();
    if (Status status = ReceiveOutputs(); !status.ok()) return status;
    result->outputs.resize(outputs_.size());
    for (size_t i = 0; i < outputs_.size(); ++i) {
      if (Status status = ReadOutput(outputs_[i], &result->outputs[i]); !status.ok()) return status;
    }
    return Status::Ok();
  });
}

Status OrtInstance::BindTensor(const Batch& batch, size_t index) {
  const OrtApi& api = context_.api;
  Input& input = inputs_[index];
  const TensorView tensor = GatherInput(batch, index, &input.buffer);
  if (input.value.get() != nullptr && input.bound.data.data() == tensor.data.data() &&
      input.bound.shape == tensor.shape) {
    return Status::Ok();
  }
  const std::string& name = input.spec.name;
  // ONNX Runtime writes to no input; its C interface lacks the const.
  void* data = const_cast<std::byte*>(tensor.data.data());
  GRISTMILL_RETURN_IF_ORT_FAILS(
      api,
      api.CreateTensorWithDataAsOrtValue(memory_info_.get(), data, tensor.data.size(), tensor.shape.dims().data(),
                                         tensor.shape.rank(), ToOrtType(tensor.dtype), input.value.Receive()),
      "input '" + name + "'");
  GRISTMILL_RETURN_IF_ORT_FAILS(api, api.BindInput(binding_.get(), name.c_str(), input.value.get()),
                                "binding input '" + name + "'");
  input.bound = tensor;
  return Status::Ok();
}

Status OrtInstance::BindStrings(const Batch& batch, size_t index) {
  const OrtApi& api = context_.api;
  Input& input = inputs_[index];
  const std::string& name = input.spec.name;
  const Shape shape = GatheredShape(batch, index);
  // With the same shape the strings of the last batch are overwritten in place, and keep their memory.
  if (input.value.get() == nullptr || !(input.bound.shape == shape)) {
    GRISTMILL_RETURN_IF_ORT_FAILS(
        api,
        api.CreateTensorAsOrtValue(allocator_, shape.dims().data(), shape.rank(), ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
                                   input.value.Receive()),
        "input '" + name + "'");
    GRISTMILL_RETURN_IF_ORT_FAILS(api, api.BindInput(binding_.get(), name.c_str(), input.value.get()),
                                  "binding input '" + name + "'");
    input.bound.shape = shape;
  }
  return FillStrings(batch, index);
}

Status OrtInstance::FillStrings(const Batch& batch, size_t index) {
  const OrtApi& api = context_.api;
  Input& input = inputs_[index];
  OrtStatus* failed = nullptr;
  int64_t filled = 0;
  for (const BatchItem& item : batch.items) {
    ForEachBytesElement(item.inputs[index].data, [&](std::span<const std::byte> element) {
      if (failed != nullptr) return;
      char* text = nullptr;
      // The only way in that takes strings with zeros inside.
      failed = api.GetResizedStringTensorElementBuffer(input.value.get(), static_cast<size_t>(filled++), element.size(),
                                                       &text);
      if (failed == nullptr && !element.empty()) std::memcpy(text, element.data(), element.size());
    });
  }
  GRISTMILL_RETURN_IF_ORT_FAILS(api, failed, "input '" + input.spec.name + "'");
  const int64_t expected = input.bound.shape.ElementCount();
  if (filled != expected) {
    return InvalidArgument("input '" + input.spec.name + "': expected " + std::to_string(expected) +
                           " BYTES elements for shape " + input.bound.shape.ToString() + ", got " +
                           std::to_string(filled));
  }
  return Status::Ok();
}

Status OrtInstance::ReceiveOutputs() {
  const OrtApi& api = context_.api;
  OrtValue** values = nullptr;
  size_t count = 0;
  GRISTMILL_RETURN_IF_ORT_FAILS(api, api.GetBoundOutputValues(binding_.get(), allocator_, &values, &count),
                                "fetching the outputs");
  // In the order in which they were first bound, which is the configuration's.
  for (size_t i = 0; i < count; ++i) {
    if (i < outputs_.size()) {
      outputs_[i].value.Reset(values[i]);
    } else {
      api.ReleaseValue(values[i]);
    }
  }
  allocator_->Free(allocator_, values);
  if (count != outputs_.size()) {
    return Internal("the model gave " + std::to_string(count) + " outputs, " + std::to_string(outputs_.size()) +
                    " were bound");
  }
  return Status::Ok();
}

Status OrtInstance::ReadOutput(Output& output, BatchOutput* result) {
  const OrtApi& api = context_.api;
  const auto doing = [&] { return "reading output '" + output.spec.name + "'"; };
  OrtShapeInfoHandle shape_info(api);
  GRISTMILL_RETURN_IF_ORT_FAILS(api, api.GetTensorTypeAndShape(output.value.get(), shape_info.Receive()), doing());
  size_t rank = 0;
  GRISTMILL_RETURN_IF_ORT_FAILS(api, api.GetDimensionsCount(shape_info.get(), &rank), doing());
  if (rank > Shape::kMaxRank) {
    return Internal("output '" + output.spec.name + "' has " + std::to_string(rank) + " dimensions; at most " +
                    std::to_string(Shape::kMaxRank) + " are served");
  }
  std::array<int64_t, Shape::kMaxRank> dims{};
  GRISTMILL_RETURN_IF_ORT_FAILS(api, api.GetDimensions(shape_info.get(), dims.data(), rank), doing());
  const Shape shape(std::span<const int64_t>(dims).first(rank));
  if (output.spec.dtype == DataType::kBytes) return ReadStrings(output, shape, result);
  void* data = nullptr;
  GRISTMILL_RETURN_IF_ORT_FAILS(api, api.GetTensorMutableData(output.value.get(), &data), doing());
  const size_t size_bytes = static_cast<size_t>(shape.ElementCount()) * ElementSizeBytes(output.spec.dtype);
  *result = {
      .tensor = {.dtype = output.spec.dtype, .shape = shape, .data = {static_cast<const std::byte*>(data), size_bytes}},
      .row_offsets = {}};
  return Status::Ok();
}

Status OrtInstance::ReadStrings(Output& output, const Shape& shape, BatchOutput* result) {
  const OrtApi& api = context_.api;
  const auto doing = [&] { return "reading output '" + output.spec.name + "'"; };
  size_t content_bytes = 0;
  GRISTMILL_RETURN_IF_ORT_FAILS(api, api.GetStringTensorDataLength(output.value.get(), &content_bytes), doing());
  output.content.resize(content_bytes);
  output.element_offsets.resize(static_cast<size_t>(shape.ElementCount()));
  if (!output.element_offsets.empty()) {
    GRISTMILL_RETURN_IF_ORT_FAILS(
        api,
        api.GetStringTensorContent(output.value.get(), output.content.data(), content_bytes,
                                   output.element_offsets.data(), output.element_offsets.size()),
        doing());
  }
  *result = output.bytes.Serialize(shape, output.content, output.element_offsets);
  return Status::Ok();
}

}  // namespace gristmill
