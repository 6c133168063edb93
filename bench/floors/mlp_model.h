// SPDX-License-Identifier: Apache-2.0
// The benched MLP on ONNX Runtime, in one thread and with input and output memory of its own: the least that whoever
// runs it has to do.
#pragma once

#include <dlfcn.h>
#include <onnxruntime_c_api.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "floor.h"

namespace floors {

// INPUT0 float32[N,16] -> OUTPUT0 float32[N,1]. Whatever goes wrong ends the process.
class MlpModel {
 public:
  static constexpr size_t kWidth = 16;
  static constexpr size_t kMaxRows = 256;

  MlpModel(const std::string& library, const std::string& path) {
    void* handle = dlopen(library.c_str(), RTLD_NOW);
    if (handle == nullptr) Die(dlerror());
    const auto base = reinterpret_cast<const OrtApiBase* (*)()>(dlsym(handle, "OrtGetApiBase"));
    if (base == nullptr) Die(library + " is no ONNX Runtime");
    api_ = base()->GetApi(ORT_API_VERSION);
    if (api_ == nullptr) Die(library + " is older than the header that this was built with");
    OrtEnv* environment = nullptr;
    OrtSessionOptions* options = nullptr;
    Check(api_->CreateEnv(ORT_LOGGING_LEVEL_WARNING, "floor", &environment));
    Check(api_->CreateSessionOptions(&options));
    Check(api_->SetIntraOpNumThreads(options, 1));
    Check(api_->CreateSession(environment, path.c_str(), options, &session_));
    Check(api_->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory_));
  }

  float* row(size_t index) { return input_.data() + index * kWidth; }
  const float& output(size_t index) const { return output_[index]; }

  void Run(size_t rows) {
    OrtValue* input = View(input_.data(), rows, kWidth);
    OrtValue* output = View(output_.data(), rows, 1);
    const char* const input_name = "INPUT0";
    const char* const output_name = "OUTPUT0";
    Check(api_->Run(session_, nullptr, &input_name, &input, 1, &output_name, 1, &output));
    api_->ReleaseValue(input);
    api_->ReleaseValue(output);
  }

 private:
  void Check(OrtStatus* status) const {
    if (status != nullptr) Die(api_->GetErrorMessage(status));
  }

  OrtValue* View(float* data, size_t rows, size_t width) {
    const std::array<int64_t, 2> shape = {static_cast<int64_t>(rows), static_cast<int64_t>(width)};
    OrtValue* value = nullptr;
    Check(api_->CreateTensorWithDataAsOrtValue(memory_, data, rows * width * sizeof(float), shape.data(), shape.size(),
                                               ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &value));
    return value;
  }

  const OrtApi* api_ = nullptr;
  OrtSession* session_ = nullptr;
  OrtMemoryInfo* memory_ = nullptr;
  std::vector<float> input_ = std::vector<float>(kMaxRows * kWidth);
  std::vector<float> output_ = std::vector<float>(kMaxRows);
};

}  // namespace floors
