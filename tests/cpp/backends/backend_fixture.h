// SPDX-License-Identifier: Apache-2.0
// Loading a backend plugin and talking to it with owned tensors.
#pragma once

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "core/backend.h"
#include "core/fake_clock.h"

namespace gristmill {

struct Tensor {
  DataType dtype = DataType::kInvalid;
  Shape shape;
  std::vector<std::byte> data;
  std::vector<size_t> row_offsets;  // of kBytes outputs

  TensorView view() const { return {.dtype = dtype, .shape = shape, .data = data}; }
  friend bool operator==(const Tensor& a, const Tensor& b) {
    return a.dtype == b.dtype && a.shape == b.shape && a.data == b.data;
  }
};

inline std::ostream& operator<<(std::ostream& stream, const Tensor& tensor) {
  return stream << DataTypeName(tensor.dtype) << tensor.shape.ToString() << " " << testing::PrintToString(tensor.data);
}

template <typename Element>
Tensor MakeTensor(DataType dtype, Shape shape, const std::vector<Element>& elements) {
  const auto bytes = std::as_bytes(std::span(elements));
  return {.dtype = dtype, .shape = shape, .data = {bytes.begin(), bytes.end()}, .row_offsets = {}};
}

inline Tensor Floats(Shape shape, const std::vector<float>& elements) {
  return MakeTensor(DataType::kFp32, shape, elements);
}

inline Tensor Ids(Shape shape, const std::vector<int64_t>& elements) {
  return MakeTensor(DataType::kInt64, shape, elements);
}

inline Tensor Strings(Shape shape, const std::vector<std::string>& elements) {
  Tensor tensor{.dtype = DataType::kBytes, .shape = shape, .data = {}, .row_offsets = {}};
  for (const std::string& element : elements) {
    const uint32_t length = static_cast<uint32_t>(element.size());
    for (const auto part : {std::as_bytes(std::span(&length, 1)), std::as_bytes(std::span(element))}) {
      tensor.data.insert(tensor.data.end(), part.begin(), part.end());
    }
  }
  return tensor;
}

/// `elements` distinct-looking numbers, exact in FP32 and in sums of a few.
inline Tensor RampFloats(Shape shape, int start) {
  std::vector<float> elements;
  for (int64_t i = 0; i < shape.ElementCount(); ++i) elements.push_back(static_cast<float>(start + i) * 0.5f);
  return Floats(shape, elements);
}

/// One request: its inputs in the configuration's order.
using Request = std::vector<Tensor>;

inline Tensor Copy(const BatchOutput& output) {
  return {.dtype = output.tensor.dtype,
          .shape = output.tensor.shape,
          .data = {output.tensor.data.begin(), output.tensor.data.end()},
          .row_offsets = {output.row_offsets.begin(), output.row_offsets.end()}};
}

inline Status Execute(BackendInstance& instance, const std::vector<Request>& requests, BatchResult* result) {
  std::vector<std::vector<TensorView>> views;
  for (const Request& request : requests) {
    views.emplace_back();
    for (const Tensor& tensor : request) views.back().push_back(tensor.view());
  }
  std::vector<BatchItem> items;
  Batch batch;
  for (const auto& inputs : views) {
    const int64_t rows = inputs.front().shape.rank() == 0 ? 1 : inputs.front().shape[0];
    items.push_back({.inputs = inputs, .rows = rows});
    batch.total_rows += rows;
  }
  batch.items = items;
  return instance.Execute(batch, result);
}

/// Executes, expects success and copies the outputs.
inline std::vector<Tensor> Outputs(BackendInstance& instance, const std::vector<Request>& requests) {
  BatchResult result;
  const Status status = Execute(instance, requests, &result);
  EXPECT_TRUE(status.ok()) << status.message();
  std::vector<Tensor> outputs;
  if (status.ok()) {
    for (const BatchOutput& output : result.outputs) outputs.push_back(Copy(output));
  }
  return outputs;
}

/// Joins what the requests give one by one, output by output, along the first dimension.
inline std::vector<Tensor> OutputsOneByOne(BackendInstance& instance, const std::vector<Request>& requests) {
  std::vector<Tensor> joined;
  for (const Request& request : requests) {
    const std::vector<Tensor> outputs = Outputs(instance, {request});
    if (joined.empty()) {
      joined = outputs;
      continue;
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
      joined[i].shape[0] += outputs[i].shape[0];
      joined[i].data.insert(joined[i].data.end(), outputs[i].data.begin(), outputs[i].data.end());
    }
  }
  return joined;
}

/// A configuration that takes the file at its word. With `max_batch_size` > 0 the first dimension is the batch.
inline ModelConfig ConfigFrom(const ModelSignature& signature, int64_t max_batch_size) {
  ModelConfig config;
  config.name = "model";
  config.max_batch_size = max_batch_size;
  config.inputs = signature.inputs;
  config.outputs = signature.outputs;
  for (auto* specs : {&config.inputs, &config.outputs}) {
    for (TensorSpec& spec : *specs) {
      if (max_batch_size > 0) spec.dims.erase(spec.dims.begin());
    }
  }
  return config;
}

/// A loaded plugin's entry point. The library stays loaded.
inline CreateBackendFunction LoadPlugin(const std::string& name) {
  const std::string path = std::string(GRISTMILL_PLUGIN_DIRECTORY) + "/gristmill_backend_" + name + ".so";
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    ADD_FAILURE() << dlerror();
    return nullptr;
  }
  return reinterpret_cast<CreateBackendFunction>(dlsym(library, "gristmill_create_backend"));
}

/// A directory of this process alone, removed when it ends: ctest runs every test in its own process, several at once.
class ProcessDirectory {
 public:
  ProcessDirectory() {
    if (mkdtemp(path_.data()) == nullptr) throw std::runtime_error("cannot make " + path_);
  }
  ~ProcessDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ProcessDirectory(const ProcessDirectory&) = delete;
  ProcessDirectory& operator=(const ProcessDirectory&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_ = testing::TempDir() + "/gristmill_test_XXXXXX";
};

inline std::string WriteFile(const std::string& name, std::string_view text) {
  static const ProcessDirectory directory;
  const std::string path = directory.path() + "/" + name;
  std::ofstream(path, std::ios::binary) << text;
  return path;
}

inline bool Contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

/// A backend on a clock that stands still, and models opened on it. Declared in the order in which they may go.
class BackendTest : public testing::Test {
 protected:
  void Start(const std::string& name, const Parameters& parameters) {
    const CreateBackendFunction create = LoadPlugin(name);
    ASSERT_NE(create, nullptr);
    const Status status = create(kBackendAbiVersion, {.clock = &clock_, .parameters = parameters}, &backend_);
    ASSERT_TRUE(status.ok()) << status.message();
  }

  BackendModel& Open(const std::string& path) {
    std::unique_ptr<BackendModel> model;
    const Status status = backend_->OpenModel({.path = path, .parameters = {}}, &model);
    EXPECT_TRUE(status.ok()) << status.message();
    models_.push_back(std::move(model));
    return *models_.back();
  }

  std::unique_ptr<BackendInstance> Instance(BackendModel& model, int64_t max_batch_size) {
    return Instance(model, ConfigFrom(model.signature(), max_batch_size));
  }

  std::unique_ptr<BackendInstance> Instance(BackendModel& model, const ModelConfig& config) {
    std::unique_ptr<BackendInstance> instance;
    const Status status = model.CreateInstance(config, &instance);
    EXPECT_TRUE(status.ok()) << status.message();
    return instance;
  }

  FakeClock clock_;
  std::unique_ptr<Backend> backend_;
  std::vector<std::unique_ptr<BackendModel>> models_;
};

}  // namespace gristmill
