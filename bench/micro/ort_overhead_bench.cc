// SPDX-License-Identifier: Apache-2.0
// What the ONNX Runtime backend adds to ONNX Runtime: Execute on a small MLP beside a bare Run that copies its rows
// into one buffer and reuses input and output memory. Both run in the same process, on one thread, in turns.
//
//   ort_overhead_bench PLUGIN LIBONNXRUNTIME MODEL     (the plugin's .so, the runtime's .so, the tests' mlp.onnx)
//
// One line per batch size: median ns per batch of each, and their ratio.
#include <dlfcn.h>
#include <onnxruntime_c_api.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "core/backend.h"

namespace {

using gristmill::Backend;
using gristmill::BackendInstance;
using gristmill::BackendModel;
using gristmill::BatchItem;
using gristmill::BatchResult;
using gristmill::Clock;
using gristmill::DataType;
using gristmill::ModelConfig;
using gristmill::Status;
using gristmill::TensorView;

constexpr int64_t kWidth = 16;
constexpr int64_t kMaxRows = 64;
constexpr int kRounds = 41;
constexpr int kBatchesPerRound = 2000;

void Check(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.message().c_str());
  std::exit(1);
}

void* OpenLibrary(const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    std::fprintf(stderr, "%s\n", dlerror());
    std::exit(1);
  }
  return library;
}

/// ONNX Runtime with nothing around it. Lives as long as the process.
class BareRun {
 public:
  BareRun(const char* library, const char* model) {
    const auto base = reinterpret_cast<const OrtApiBase* (*)()>(dlsym(OpenLibrary(library), "OrtGetApiBase"));
    api_ = base()->GetApi(ORT_API_VERSION);
    OrtSessionOptions* options = nullptr;
    Must(api_->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "bare", &env_));
    Must(api_->CreateSessionOptions(&options));
    Must(api_->SetIntraOpNumThreads(options, 1));
    Must(api_->CreateSession(env_, model, options, &session_));
    Must(api_->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory_info_));
    api_->ReleaseSessionOptions(options);
  }

  void Execute(const std::vector<TensorView>& rows, int64_t count) {
    float* at = input_.data();
    for (int64_t row = 0; row < count; ++row, at += kWidth) {
      std::memcpy(at, rows[static_cast<size_t>(row)].data.data(), kWidth * sizeof(float));
    }
    const int64_t input_shape[] = {count, kWidth};
    const int64_t output_shape[] = {count, 1};
    OrtValue* input = Value(input_, count * kWidth, input_shape);
    OrtValue* output = Value(output_, count, output_shape);
    const char* input_name = "INPUT0";
    const char* output_name = "OUTPUT0";
    Must(api_->Run(session_, nullptr, &input_name, &input, 1, &output_name, 1, &output));
    api_->ReleaseValue(input);
    api_->ReleaseValue(output);
  }

  const float* output() const { return output_.data(); }

 private:
  void Must(OrtStatus* status) const {
    if (status == nullptr) return;
    std::fprintf(stderr, "%s\n", api_->GetErrorMessage(status));
    std::exit(1);
  }

  OrtValue* Value(std::vector<float>& data, int64_t count, const int64_t (&shape)[2]) {
    OrtValue* value = nullptr;
    Must(api_->CreateTensorWithDataAsOrtValue(memory_info_, data.data(), static_cast<size_t>(count) * sizeof(float),
                                              shape, 2, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &value));
    return value;
  }

  const OrtApi* api_ = nullptr;
  OrtEnv* env_ = nullptr;
  OrtSession* session_ = nullptr;
  OrtMemoryInfo* memory_info_ = nullptr;
  std::vector<float> input_ = std::vector<float>(kMaxRows * kWidth);
  std::vector<float> output_ = std::vector<float>(kMaxRows);
};

template <typename Body>
double NsPerBatch(const Clock& clock, Body&& body) {
  const int64_t start_ns = clock.NowNs();
  for (int i = 0; i < kBatchesPerRound; ++i) body();
  return static_cast<double>(clock.NowNs() - start_ns) / kBatchesPerRound;
}

double Median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

void Compare(const Clock& clock, BareRun& bare, BackendInstance& instance, int64_t rows) {
  std::vector<std::vector<float>> data(static_cast<size_t>(rows), std::vector<float>(kWidth, 0.25f));
  std::vector<TensorView> views;
  std::vector<BatchItem> items;
  for (size_t i = 0; i < data.size(); ++i) {
    data[i][0] = static_cast<float>(i);
    views.push_back({.dtype = DataType::kFp32, .shape = {1, kWidth}, .data = std::as_bytes(std::span(data[i]))});
  }
  for (const TensorView& view : views) items.push_back({.inputs = {&view, 1}, .rows = 1});
  BatchResult result;
  std::vector<double> bare_ns;
  std::vector<double> backend_ns;
  for (int round = 0; round < kRounds; ++round) {
    bare_ns.push_back(NsPerBatch(clock, [&] { bare.Execute(views, rows); }));
    backend_ns.push_back(
        NsPerBatch(clock, [&] { Check(instance.Execute({.items = items, .total_rows = rows}, &result)); }));
  }
  const auto answers = result.outputs[0].tensor.data;
  if (std::memcmp(answers.data(), bare.output(), answers.size()) != 0) {
    std::fprintf(stderr, "the two do not give the same answers\n");
    std::exit(1);
  }
  std::printf("rows %3d   bare %8.0f ns   backend %8.0f ns   ratio %.3f\n", static_cast<int>(rows), Median(bare_ns),
              Median(backend_ns), Median(backend_ns) / Median(bare_ns));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: %s PLUGIN LIBONNXRUNTIME MODEL\n", argv[0]);
    return 2;
  }
  Clock& clock = gristmill::SystemClock();
  const auto create =
      reinterpret_cast<gristmill::CreateBackendFunction>(dlsym(OpenLibrary(argv[1]), "gristmill_create_backend"));
  std::unique_ptr<Backend> backend;
  // The backend first: it makes the process's environment, with the thread pool that it needs.
  Check(create(gristmill::kBackendAbiVersion,
               {.clock = &clock, .parameters = {{"library_path", argv[2]}, {"intra_op_threads", "1"}}}, &backend));
  std::unique_ptr<BackendModel> model;
  Check(backend->OpenModel({.path = argv[3], .parameters = {}}, &model));
  ModelConfig config;
  config.max_batch_size = kMaxRows;
  config.inputs = {{"INPUT0", DataType::kFp32, {kWidth}}};
  config.outputs = {{"OUTPUT0", DataType::kFp32, {1}}};
  std::unique_ptr<BackendInstance> instance;
  Check(model->CreateInstance(config, &instance));
  BareRun bare(argv[2], argv[3]);
  for (const int64_t rows : {int64_t{1}, int64_t{8}, kMaxRows}) Compare(clock, bare, *instance, rows);
}
