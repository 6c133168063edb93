// SPDX-License-Identifier: Apache-2.0
#include "backends/onnxruntime/ort_api.h"

#include <dlfcn.h>

#include <array>

namespace gristmill {
namespace {

struct TypePair {
  ONNXTensorElementDataType ort;
  DataType dtype;
};

constexpr std::array<TypePair, 14> kTypes = {{
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL, DataType::kBool},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, DataType::kUint8},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16, DataType::kUint16},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32, DataType::kUint32},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64, DataType::kUint64},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8, DataType::kInt8},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16, DataType::kInt16},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, DataType::kInt32},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, DataType::kInt64},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, DataType::kFp16},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, DataType::kFp32},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE, DataType::kFp64},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING, DataType::kBytes},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16, DataType::kBf16},
}};

StatusCode ToCode(OrtErrorCode code) {
  switch (code) {
    case ORT_INVALID_ARGUMENT:
    case ORT_INVALID_PROTOBUF:
    case ORT_INVALID_GRAPH:
      return StatusCode::kInvalidArgument;
    case ORT_NO_SUCHFILE:
    case ORT_NO_MODEL:
      return StatusCode::kNotFound;
    case ORT_NOT_IMPLEMENTED:
      return StatusCode::kUnimplemented;
    default:
      return StatusCode::kInternal;
  }
}

}  // namespace

Status LoadOrtRuntime(const std::string& library_path, OrtRuntime* runtime) {
  const auto failed = [&](const std::string& reason) {
    return Unavailable("library_path '" + library_path + "': " + reason +
                       "; expected ONNX Runtime's shared library, 'libonnxruntime.so.<version>'");
  };
  void* library = dlopen(library_path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return failed(dlerror());
  using GetApiBase = const OrtApiBase* (*)();
  const auto get_api_base = reinterpret_cast<GetApiBase>(dlsym(library, "OrtGetApiBase"));
  if (get_api_base == nullptr) return failed("has no symbol OrtGetApiBase");
  const OrtApiBase* base = get_api_base();
  const OrtApi* api = base->GetApi(kOrtApiVersion);
  if (api == nullptr) {
    return failed(std::string("is release ") + base->GetVersionString() + ", which lacks version " +
                  std::to_string(kOrtApiVersion) + " of the C interface");
  }
  *runtime = {.api = api, .version = base->GetVersionString()};
  return Status::Ok();
}

Status OrtStatusToStatus(const OrtApi& api, OrtStatus* status, std::string_view doing) {
  if (status == nullptr) return Status::Ok();
  const OrtHandle<OrtStatus, &OrtApi::ReleaseStatus> owner = [&] {
    OrtHandle<OrtStatus, &OrtApi::ReleaseStatus> handle(api);
    handle.Reset(status);
    return handle;
  }();
  return {ToCode(api.GetErrorCode(status)), std::string(doing) + ": " + api.GetErrorMessage(status)};
}

DataType FromOrtType(ONNXTensorElementDataType type) {
  for (const TypePair& pair : kTypes) {
    if (pair.ort == type) return pair.dtype;
  }
  return DataType::kInvalid;
}

ONNXTensorElementDataType ToOrtType(DataType type) {
  for (const TypePair& pair : kTypes) {
    if (pair.dtype == type) return pair.ort;
  }
  return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
}

}  // namespace gristmill
