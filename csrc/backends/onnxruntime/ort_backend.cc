// SPDX-License-Identifier: Apache-2.0
// The plugin `onnxruntime`: ONNX models on the CPU.
//
// Parameters: library_path (required: ONNX Runtime's shared library), intra_op_threads (default: the cores this process
// may use), inter_op_threads (default 1, more for models with execution_mode parallel), log_level (verbose, info,
// warning, error, fatal; default error). All models share one pool of threads, which sleep when idle instead of
// spinning, and one arena. ONNX Runtime has one environment per process: a second backend beside the first runs on the
// first one's threads and log level, whatever its own parameters say.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "backends/onnxruntime/ort_api.h"
#include "backends/onnxruntime/ort_model.h"
#include "backends/parameters.h"
#include "backends/plugin.h"

namespace gristmill {
namespace {

constexpr int kMaxThreads = 1024;

struct OrtBackendOptions {
  int intra_op_threads = 1;
  int inter_op_threads = 1;
  // Not warning: a model whose declared output shape lies would be worth one to every batch.
  OrtLoggingLevel log_level = ORT_LOGGING_LEVEL_ERROR;
};

Status ReadOptions(const Parameters& parameters, OrtBackendOptions* options) {
  Status status = CheckParameterNames("backend 'onnxruntime'", parameters,
                                      {"library_path", "intra_op_threads", "inter_op_threads", "log_level"});
  if (!status.ok()) return status;
  if (!parameters.contains("library_path")) {
    return InvalidArgument(
        "backend 'onnxruntime': parameter 'library_path' is missing; set it to ONNX Runtime's shared library, "
        "'libonnxruntime.so.<version>' in the directory onnxruntime/capi of the Python package");
  }
  options->intra_op_threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  status = ReadInt(parameters, "intra_op_threads", 1, kMaxThreads, &options->intra_op_threads);
  if (!status.ok()) return status;
  status = ReadInt(parameters, "inter_op_threads", 1, kMaxThreads, &options->inter_op_threads);
  if (!status.ok()) return status;
  return ReadChoice<OrtLoggingLevel>(parameters, "log_level",
                                     {{"verbose", ORT_LOGGING_LEVEL_VERBOSE},
                                      {"info", ORT_LOGGING_LEVEL_INFO},
                                      {"warning", ORT_LOGGING_LEVEL_WARNING},
                                      {"error", ORT_LOGGING_LEVEL_ERROR},
                                      {"fatal", ORT_LOGGING_LEVEL_FATAL}},
                                     &options->log_level);
}

void ORT_API_CALL Log(void*, OrtLoggingLevel severity, const char* category, const char* session, const char* location,
                      const char* message) {
  constexpr std::string_view kLetters = "VIWEF";
  const char letter = kLetters[std::min<size_t>(static_cast<size_t>(severity), kLetters.size() - 1)];
  // One call, so that lines of different threads do not mix.
  std::fprintf(stderr, "%c onnxruntime %s %s %s: %s\n", letter, category, session, location, message);
}

class OrtBackend final : public Backend {
 public:
  OrtBackend(OrtRuntime runtime, Clock& clock) : runtime_(std::move(runtime)), clock_(clock), env_(*runtime_.api) {}

  Status Start(const OrtBackendOptions& options) {
    const OrtApi& api = *runtime_.api;
    constexpr std::string_view kDoing = "starting ONNX Runtime";
    inter_op_threads_ = options.inter_op_threads;
    OrtThreadingOptionsHandle threading(api);
    GRISTMILL_RETURN_IF_ORT_FAILS(api, api.CreateThreadingOptions(threading.Receive()), kDoing);
    GRISTMILL_RETURN_IF_ORT_FAILS(api, api.SetGlobalIntraOpNumThreads(threading.get(), options.intra_op_threads),
                                  kDoing);
    GRISTMILL_RETURN_IF_ORT_FAILS(api, api.SetGlobalInterOpNumThreads(threading.get(), options.inter_op_threads),
                                  kDoing);
    GRISTMILL_RETURN_IF_ORT_FAILS(api, api.SetGlobalSpinControl(threading.get(), 0), kDoing);
    GRISTMILL_RETURN_IF_ORT_FAILS(api,
                                  api.CreateEnvWithCustomLoggerAndGlobalThreadPools(
                                      &Log, nullptr, options.log_level, "gristmill", threading.get(), env_.Receive()),
                                  kDoing);
    OrtMemoryInfoHandle memory_info(api);
    GRISTMILL_RETURN_IF_ORT_FAILS(
        api, api.CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, memory_info.Receive()), kDoing);
    GRISTMILL_RETURN_IF_ORT_FAILS(api, api.CreateAndRegisterAllocator(env_.get(), memory_info.get(), nullptr), kDoing);
    return Status::Ok();
  }

  std::string_view name() const override { return "onnxruntime"; }
  std::string version() const override { return runtime_.version; }

  Status OpenModel(const OpenOptions& options, std::unique_ptr<BackendModel>* model) override {
    return StopExceptions([&]() -> Status {
      const OrtContext context{
          .api = *runtime_.api, .env = env_.get(), .clock = clock_, .inter_op_threads = inter_op_threads_};
      return OrtModel::Open(context, options, model);
    });
  }

 private:
  const OrtRuntime runtime_;
  Clock& clock_;
  int inter_op_threads_ = 1;
  OrtEnvHandle env_;
};

Status CreateOrtBackend(const BackendOptions& options, std::unique_ptr<Backend>* backend) {
  OrtBackendOptions ort_options;
  if (Status status = ReadOptions(options.parameters, &ort_options); !status.ok()) return status;
  OrtRuntime runtime;
  Status status = LoadOrtRuntime(options.parameters.at("library_path"), &runtime);
  if (!status.ok()) return status;
  auto created = std::make_unique<OrtBackend>(std::move(runtime), *options.clock);
  status = created->Start(ort_options);
  if (!status.ok()) return status;
  *backend = std::move(created);
  return Status::Ok();
}

}  // namespace
}  // namespace gristmill

gristmill::Status gristmill_create_backend(int abi_version, const gristmill::BackendOptions& options,
                                           std::unique_ptr<gristmill::Backend>* backend) {
  return gristmill::StopExceptions([&]() -> gristmill::Status {
    if (auto status = gristmill::CheckPluginCall(abi_version, options); !status.ok()) return status;
    return gristmill::CreateOrtBackend(options, backend);
  });
}
