// SPDX-License-Identifier: Apache-2.0
// The plugin `sim`: models whose time and faults are written down, for tests and for trying out a configuration.
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>

#include "backends/parameters.h"
#include "backends/plugin.h"
#include "backends/signature.h"
#include "backends/sim/sim_instance.h"
#include "backends/sim/sim_model_file.h"

namespace gristmill {
namespace {

class SimModel final : public BackendModel {
 public:
  SimModel(SimModelFile file, Clock& clock) : file_(std::move(file)), clock_(clock) {}

  const ModelSignature& signature() const override { return file_.signature; }

  Status CreateInstance(const ModelConfig& config, std::unique_ptr<BackendInstance>* instance) override {
    return StopExceptions([&]() -> Status {
      if (Status status = CheckAgainstSignature(config, file_.signature); !status.ok()) return status;
      if (file_.fail_create_instance) return Internal("the simulated model fails to create an instance");
      *instance = std::make_unique<SimInstance>(file_, config, clock_);
      return Status::Ok();
    });
  }

 private:
  const SimModelFile file_;
  Clock& clock_;
};

class SimBackend final : public Backend {
 public:
  explicit SimBackend(Clock& clock) : clock_(clock) {}

  std::string_view name() const override { return "sim"; }
  std::string version() const override { return "1"; }

  Status OpenModel(const OpenOptions& options, std::unique_ptr<BackendModel>* model) override {
    return StopExceptions([&]() -> Status {
      const std::string owner = "model file '" + options.path + "'";
      if (Status status = CheckParameterNames(owner, options.parameters, {}); !status.ok()) return status;
      std::ifstream stream(options.path, std::ios::binary);
      if (!stream || !std::filesystem::is_regular_file(options.path)) {
        return NotFound(owner + ": does not exist or cannot be read");
      }
      const std::string text(std::istreambuf_iterator<char>(stream), {});
      SimModelFile file;
      if (Status status = ParseSimModelFile(text, &file); !status.ok()) {
        return InvalidArgument(owner + ": " + status.message());
      }
      *model = std::make_unique<SimModel>(std::move(file), clock_);
      return Status::Ok();
    });
  }

 private:
  Clock& clock_;
};

}  // namespace
}  // namespace gristmill

gristmill::Status gristmill_create_backend(int abi_version, const gristmill::BackendOptions& options,
                                           std::unique_ptr<gristmill::Backend>* backend) {
  return gristmill::StopExceptions([&]() -> gristmill::Status {
    if (auto status = gristmill::CheckPluginCall(abi_version, options); !status.ok()) return status;
    if (auto status = gristmill::CheckParameterNames("backend 'sim'", options.parameters, {}); !status.ok()) {
      return status;
    }
    *backend = std::make_unique<gristmill::SimBackend>(*options.clock);
    return gristmill::Status::Ok();
  });
}
