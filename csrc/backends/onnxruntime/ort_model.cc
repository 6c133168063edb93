// SPDX-License-Identifier: Apache-2.0
#include "backends/onnxruntime/ort_model.h"

#include <string>
#include <utility>

#include "backends/onnxruntime/ort_instance.h"
#include "backends/parameters.h"
#include "backends/plugin.h"
#include "backends/signature.h"
#include "core/tensor.h"

namespace gristmill {
namespace {

Status SetSessionOptions(const OrtContext& context, const Parameters& parameters, OrtSessionOptions* options) {
  GraphOptimizationLevel level = ORT_ENABLE_ALL;
  ExecutionMode mode = ORT_SEQUENTIAL;
  bool mem_pattern = true;
  Status status = CheckParameterNames("the model's parameters", parameters,
                                      {"graph_optimization_level", "execution_mode", "enable_mem_pattern"});
  if (!status.ok()) return status;
  status = ReadChoice<GraphOptimizationLevel>(parameters, "graph_optimization_level",
                                              {{"disable", ORT_DISABLE_ALL},
                                               {"basic", ORT_ENABLE_BASIC},
                                               {"extended", ORT_ENABLE_EXTENDED},
                                               {"all", ORT_ENABLE_ALL}},
                                              &level);
  if (!status.ok()) return status;
  status = ReadChoice<ExecutionMode>(parameters, "execution_mode",
                                     {{"sequential", ORT_SEQUENTIAL}, {"parallel", ORT_PARALLEL}}, &mode);
  if (!status.ok()) return status;
  status = ReadChoice<bool>(parameters, "enable_mem_pattern", {{"true", true}, {"false", false}}, &mem_pattern);
  if (!status.ok()) return status;
  if (mode == ORT_PARALLEL && context.inter_op_threads < 2) {
    return InvalidArgument(
        "parameter 'execution_mode': parallel needs the backend's parameter 'inter_op_threads' to be 2 or more");
  }
  const OrtApi& api = context.api;
  constexpr std::string_view kDoing = "setting session options";
  GRISTMILL_RETURN_IF_ORT_FAILS(api, api.DisablePerSessionThreads(options), kDoing);
  GRISTMILL_RETURN_IF_ORT_FAILS(api, api.AddSessionConfigEntry(options, "session.use_env_allocators", "1"), kDoing);
  GRISTMILL_RETURN_IF_ORT_FAILS(api, api.SetSessionGraphOptimizationLevel(options, level), kDoing);
  GRISTMILL_RETURN_IF_ORT_FAILS(api, api.SetSessionExecutionMode(options, mode), kDoing);
  // Patterns are planned for one order of execution, so they exclude parallel execution.
  const bool plan = mem_pattern && mode == ORT_SEQUENTIAL;
  GRISTMILL_RETURN_IF_ORT_FAILS(api, plan ? api.EnableMemPattern(options) : api.DisableMemPattern(options), kDoing);
  return Status::Ok();
}

std::string KindName(ONNXType kind) {
  switch (kind) {
    case ONNX_TYPE_SEQUENCE:
      return "a sequence";
    case ONNX_TYPE_MAP:
      return "a map";
    case ONNX_TYPE_SPARSETENSOR:
      return "a sparse tensor";
    case ONNX_TYPE_OPTIONAL:
      return "an optional value";
    default:
      return "an opaque value";
  }
}

}  // namespace

Status OrtModel::Open(const OrtContext& context, const OpenOptions& options, std::unique_ptr<BackendModel>* model) {
  const std::string owner = "model file '" + options.path + "'";
  const auto located = [&](const Status& status) { return Status(status.code(), owner + ": " + status.message()); };
  const OrtApi& api = context.api;
  OrtSessionOptionsHandle session_options(api);
  GRISTMILL_RETURN_IF_ORT_FAILS(api, api.CreateSessionOptions(session_options.Receive()), owner);
  if (Status status = SetSessionOptions(context, options.parameters, session_options.get()); !status.ok()) {
    return located(status);
  }
  std::unique_ptr<OrtModel> opened(new OrtModel(context));
  GRISTMILL_RETURN_IF_ORT_FAILS(
      api, api.CreateSession(context.env, options.path.c_str(), session_options.get(), opened->session_.Receive()),
      owner);
  if (Status status = opened->ReadSignature(); !status.ok()) return located(status);
  *model = std::move(opened);
  return Status::Ok();
}

Status OrtModel::ReadSignature() {
  const OrtApi& api = context_.api;
  size_t input_count = 0;
  size_t output_count = 0;
  GRISTMILL_RETURN_IF_ORT_FAILS(api, api.SessionGetInputCount(session_.get(), &input_count), "counting inputs");
  GRISTMILL_RETURN_IF_ORT_FAILS(api, api.SessionGetOutputCount(session_.get(), &output_count), "counting outputs");
  signature_.inputs.resize(input_count);
  signature_.outputs.resize(output_count);
  for (size_t i = 0; i < input_count; ++i) {
    if (Status status = ReadTensor(true, i, &signature_.inputs[i]); !status.ok()) return status;
  }
  for (size_t i = 0; i < output_count; ++i) {
    if (Status status = ReadTensor(false, i, &signature_.outputs[i]); !status.ok()) return status;
  }
  return Status::Ok();
}

Status OrtModel::ReadTensor(bool input, size_t index, TensorSpec* spec) const {
  const OrtApi& api = context_.api;
  const std::string kind_of_tensor = input ? "input" : "output";
  const std::string number = kind_of_tensor + " number " + std::to_string(index + 1);
  OrtAllocator* allocator = nullptr;  // the process's own, not to be released
  GRISTMILL_RETURN_IF_ORT_FAILS(api, api.GetAllocatorWithDefaultOptions(&allocator), number);
  char* name = nullptr;
  GRISTMILL_RETURN_IF_ORT_FAILS(api,
                                input ? api.SessionGetInputName(session_.get(), index, allocator, &name)
                                      : api.SessionGetOutputName(session_.get(), index, allocator, &name),
                                number);
  spec->name = name;
  allocator->Free(allocator, name);
  const std::string tensor = kind_of_tensor + " '" + spec->name + "'";

  OrtTypeInfoHandle type_info(api);
  GRISTMILL_RETURN_IF_ORT_FAILS(api,
                                input ? api.SessionGetInputTypeInfo(session_.get(), index, type_info.Receive())
                                      : api.SessionGetOutputTypeInfo(session_.get(), index, type_info.Receive()),
                                tensor);
  ONNXType kind = ONNX_TYPE_UNKNOWN;
  GRISTMILL_RETURN_IF_ORT_FAILS(api, api.GetOnnxTypeFromTypeInfo(type_info.get(), &kind), tensor);
  const std::string advice = "; the protocol carries plain tensors only: export the model without it";
  if (kind != ONNX_TYPE_TENSOR) return Unimplemented(tensor + " is " + KindName(kind) + advice);
  const OrtTensorTypeAndShapeInfo* shape_info = nullptr;
  GRISTMILL_RETURN_IF_ORT_FAILS(api, api.CastTypeInfoToTensorInfo(type_info.get(), &shape_info), tensor);
  ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  GRISTMILL_RETURN_IF_ORT_FAILS(api, api.GetTensorElementType(shape_info, &type), tensor);
  spec->dtype = FromOrtType(type);
  if (spec->dtype == DataType::kInvalid) {
    return Unimplemented(tensor + " has ONNX element type number " + std::to_string(static_cast<int>(type)) + advice);
  }
  size_t rank = 0;
  GRISTMILL_RETURN_IF_ORT_FAILS(api, api.GetDimensionsCount(shape_info, &rank), tensor);
  if (rank > Shape::kMaxRank) {
    return Unimplemented(tensor + " has " + std::to_string(rank) + " dimensions; at most " +
                         std::to_string(Shape::kMaxRank) + " are served");
  }
  spec->dims.resize(rank);
  GRISTMILL_RETURN_IF_ORT_FAILS(api, api.GetDimensions(shape_info, spec->dims.data(), rank), tensor);
  return Status::Ok();
}

Status OrtModel::CreateInstance(const ModelConfig& config, std::unique_ptr<BackendInstance>* instance) {
  return StopExceptions([&]() -> Status {
    if (Status status = CheckAgainstSignature(config, signature_); !status.ok()) return status;
    return OrtInstance::Create(context_, session_.get(), config, instance);
  });
}

}  // namespace gristmill
