// SPDX-License-Identifier: Apache-2.0
// A Triton backend that runs the benched MLP on ONNX Runtime and does nothing else, so that what is measured is
// Triton's own front end and batcher. It wants <model>/libonnxruntime.so beside <model>/1/model.onnx, and requests of
// one row.
//
// The few declarations of Triton's backend API that it needs are written out here: no package has its headers.
#include <array>
#include <cstdint>
#include <cstring>
#include <string>

#include "../floors/mlp_model.h"

extern "C" {

struct TRITONSERVER_Error;
struct TRITONBACKEND_Model;
struct TRITONBACKEND_ModelInstance;
struct TRITONBACKEND_Request;
struct TRITONBACKEND_Input;
struct TRITONBACKEND_Response;
struct TRITONBACKEND_Output;

TRITONSERVER_Error* TRITONBACKEND_ModelRepository(TRITONBACKEND_Model* model, int* artifact, const char** location);
TRITONSERVER_Error* TRITONBACKEND_ModelInstanceModel(TRITONBACKEND_ModelInstance* instance,
                                                     TRITONBACKEND_Model** model);
TRITONSERVER_Error* TRITONBACKEND_ModelInstanceState(TRITONBACKEND_ModelInstance* instance, void** state);
TRITONSERVER_Error* TRITONBACKEND_ModelInstanceSetState(TRITONBACKEND_ModelInstance* instance, void* state);
TRITONSERVER_Error* TRITONBACKEND_RequestInputByIndex(TRITONBACKEND_Request* request, uint32_t index,
                                                      TRITONBACKEND_Input** input);
TRITONSERVER_Error* TRITONBACKEND_RequestRelease(TRITONBACKEND_Request* request, uint32_t flags);
TRITONSERVER_Error* TRITONBACKEND_InputBuffer(TRITONBACKEND_Input* input, uint32_t index, const void** buffer,
                                              uint64_t* size_bytes, int* memory_type, int64_t* memory_id);
TRITONSERVER_Error* TRITONBACKEND_ResponseNew(TRITONBACKEND_Response** response, TRITONBACKEND_Request* request);
TRITONSERVER_Error* TRITONBACKEND_ResponseOutput(TRITONBACKEND_Response* response, TRITONBACKEND_Output** output,
                                                 const char* name, int data_type, const int64_t* shape, uint32_t rank);
TRITONSERVER_Error* TRITONBACKEND_OutputBuffer(TRITONBACKEND_Output* output, void** buffer, uint64_t size_bytes,
                                               int* memory_type, int64_t* memory_id);
TRITONSERVER_Error* TRITONBACKEND_ResponseSend(TRITONBACKEND_Response* response, uint32_t flags,
                                               TRITONSERVER_Error* error);

}  // extern "C"

namespace {

using floors::MlpModel;

constexpr int kFp32 = 11;
constexpr uint32_t kFinal = 1;
constexpr uint32_t kReleaseAll = 1;

void Check(TRITONSERVER_Error* error) {
  if (error != nullptr) floors::Die("Triton refused a call of the backend");
}

void ReadRow(TRITONBACKEND_Request* request, float* row) {
  TRITONBACKEND_Input* input = nullptr;
  const void* data = nullptr;
  uint64_t size_bytes = 0;
  int memory_type = 0;  // the CPU's
  int64_t memory_id = 0;
  Check(TRITONBACKEND_RequestInputByIndex(request, 0, &input));
  Check(TRITONBACKEND_InputBuffer(input, 0, &data, &size_bytes, &memory_type, &memory_id));
  if (size_bytes != MlpModel::kWidth * sizeof(float)) floors::Die("expected requests of one row");
  std::memcpy(row, data, size_bytes);
}

void Answer(TRITONBACKEND_Request* request, const float& value) {
  TRITONBACKEND_Response* response = nullptr;
  TRITONBACKEND_Output* output = nullptr;
  const std::array<int64_t, 2> shape = {1, 1};
  void* data = nullptr;
  int memory_type = 0;
  int64_t memory_id = 0;
  Check(TRITONBACKEND_ResponseNew(&response, request));
  Check(TRITONBACKEND_ResponseOutput(response, &output, "OUTPUT0", kFp32, shape.data(), shape.size()));
  Check(TRITONBACKEND_OutputBuffer(output, &data, sizeof(value), &memory_type, &memory_id));
  std::memcpy(data, &value, sizeof(value));
  Check(TRITONBACKEND_ResponseSend(response, kFinal, nullptr));
  Check(TRITONBACKEND_RequestRelease(request, kReleaseAll));
}

}  // namespace

extern "C" {

TRITONSERVER_Error* TRITONBACKEND_ModelInstanceInitialize(TRITONBACKEND_ModelInstance* instance) {
  TRITONBACKEND_Model* model = nullptr;
  int artifact = 0;
  const char* location = nullptr;
  Check(TRITONBACKEND_ModelInstanceModel(instance, &model));
  Check(TRITONBACKEND_ModelRepository(model, &artifact, &location));
  const std::string directory = location;
  Check(TRITONBACKEND_ModelInstanceSetState(
      instance, new MlpModel(directory + "/libonnxruntime.so", directory + "/1/model.onnx")));
  return nullptr;
}

TRITONSERVER_Error* TRITONBACKEND_ModelInstanceExecute(TRITONBACKEND_ModelInstance* instance,
                                                       TRITONBACKEND_Request** requests, uint32_t count) {
  void* state = nullptr;
  Check(TRITONBACKEND_ModelInstanceState(instance, &state));
  auto& model = *static_cast<MlpModel*>(state);
  for (uint32_t i = 0; i < count; ++i) ReadRow(requests[i], model.row(i));
  model.Run(count);
  for (uint32_t i = 0; i < count; ++i) Answer(requests[i], model.output(i));
  return nullptr;
}

}  // extern "C"
