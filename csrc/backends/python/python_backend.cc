// SPDX-License-Identifier: Apache-2.0
// The plugin `python`: models that are Python classes, each instance in a process of its own.
//
// Parameters of the backend: `python`, the interpreter; `worker`, the path of server/gristmill_worker. Of a model:
// `model_config`, its configuration as JSON; EXECUTION_ENV_PATH, a virtual environment whose interpreter is used
// instead; EXECUTION_TIMEOUT_SECS; any other is the model's own, which finds it in its configuration.
#include <atomic>
#include <charconv>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "backends/parameters.h"
#include "backends/plugin.h"
#include "backends/python/python_instance.h"

namespace gristmill {
namespace {

constexpr int64_t kFinalizeLimitNs = 30'000'000'000;

std::string ValueOr(const Parameters& parameters, const std::string& name, std::string otherwise) {
  const auto found = parameters.find(name);
  return found == parameters.end() ? std::move(otherwise) : found->second;
}

struct ModelOptions {
  std::string path;
  std::string python;
  std::string worker;
  std::string config_json;
  int64_t execution_limit_ns = 0;
  Clock* clock = nullptr;
  ModelCaller* caller = nullptr;
};

class PythonModel final : public BackendModel {
 public:
  explicit PythonModel(ModelOptions options) : options_(std::move(options)) {}

  bool waits() const override { return true; }

  /// Nothing: the configuration says it all.
  const ModelSignature& signature() const override { return signature_; }

  Status CreateInstance(const ModelConfig& config, std::unique_ptr<BackendInstance>* instance) override {
    return StopExceptions([&]() -> Status {
      const std::filesystem::path path(options_.path);
      const std::string number = std::to_string(instances_++);
      auto created = std::make_unique<PythonInstance>(PythonInstanceOptions{
          .worker = {.command = {options_.python, options_.worker},
                     .properties = {{"model_path", options_.path},
                                    {"model_config", options_.config_json},
                                    {"model_instance_kind", "CPU"},
                                    {"model_instance_name", config.name + "_" + number},
                                    {"model_instance_device_id", "0"},
                                    {"model_repository", path.parent_path().parent_path().string()},
                                    {"model_version", std::to_string(config.version)},
                                    {"model_name", config.name}},
                     .config = config,
                     .clock = options_.clock,
                     .caller = options_.caller},
          .execution_limit_ns = options_.execution_limit_ns,
          .finalize_limit_ns = kFinalizeLimitNs});
      if (Status status = created->Start(); !status.ok()) return status;
      *instance = std::move(created);
      return Status::Ok();
    });
  }

 private:
  const ModelOptions options_;
  const ModelSignature signature_{};
  std::atomic<int> instances_{0};
};

class PythonBackend final : public Backend {
 public:
  explicit PythonBackend(BackendOptions options) : options_(std::move(options)) {}

  std::string_view name() const override { return "python"; }
  std::string version() const override { return "1"; }

  Status OpenModel(const OpenOptions& options, std::unique_ptr<BackendModel>* model) override {
    return StopExceptions([&]() -> Status {
      const std::string owner = "model file '" + options.path + "'";
      if (!std::filesystem::is_regular_file(options.path)) return NotFound(owner + ": does not exist");
      ModelOptions made{.path = options.path,
                        .python = ValueOr(options_.parameters, "python", ""),
                        .worker = ValueOr(options_.parameters, "worker", ""),
                        .config_json = ValueOr(options.parameters, "model_config", "{}"),
                        .clock = options_.clock,
                        .caller = options_.caller};
      const std::string environment = ValueOr(options.parameters, "EXECUTION_ENV_PATH", "");
      if (!environment.empty()) {
        made.python = environment + "/bin/python";
        if (!std::filesystem::exists(made.python)) {
          return InvalidArgument(owner + ": parameter 'EXECUTION_ENV_PATH': expected a virtual environment, got '" +
                                 environment + "', which has no bin/python");
        }
      }
      constexpr int kLongestSeconds = 1'000'000;
      int seconds = 0;
      const Status status = ReadInt(options.parameters, "EXECUTION_TIMEOUT_SECS", 1, kLongestSeconds, &seconds);
      if (!status.ok()) return InvalidArgument(owner + ": " + status.message());
      made.execution_limit_ns = int64_t{seconds} * 1'000'000'000;
      *model = std::make_unique<PythonModel>(std::move(made));
      return Status::Ok();
    });
  }

 private:
  const BackendOptions options_;
};

}  // namespace
}  // namespace gristmill

gristmill::Status gristmill_create_backend(int abi_version, const gristmill::BackendOptions& options,
                                           std::unique_ptr<gristmill::Backend>* backend) {
  return gristmill::StopExceptions([&]() -> gristmill::Status {
    if (auto status = gristmill::CheckPluginCall(abi_version, options); !status.ok()) return status;
    const std::string owner = "backend 'python'";
    auto status = gristmill::CheckParameterNames(owner, options.parameters, {"python", "worker"});
    if (!status.ok()) return status;
    *backend = std::make_unique<gristmill::PythonBackend>(options);
    return gristmill::Status::Ok();
  });
}
