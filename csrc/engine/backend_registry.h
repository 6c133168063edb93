// SPDX-License-Identifier: Apache-2.0
// BackendRegistry: finds backends by name and loads their plugins when they are first asked for.
//
// Thread-safety: thread-safe; a plugin is loaded once.
// Ownership: owns the backends. Plugins stay mapped until the process ends, since runtimes leave threads and handlers
// behind. Errors: kUnavailable when a plugin is not there or refuses to start, with the reason.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "core/backend.h"
#include "core/clock.h"
#include "core/model_config.h"
#include "core/mutex.h"
#include "core/status.h"

namespace gristmill {

struct BackendRegistryOptions {
  std::string plugin_directory;                  // holds gristmill_backend_<name>.so
  std::map<std::string, Parameters> parameters;  // by backend
  Clock* clock = nullptr;                        // both outlive the registry
  ModelCaller* caller = nullptr;
};

class BackendRegistry {
 public:
  explicit BackendRegistry(BackendRegistryOptions options) : options_(std::move(options)) {}

  /// The backend lives as long as the registry.
  Status Get(const std::string& name, Backend** backend);

 private:
  Status Load(const std::string& name, std::unique_ptr<Backend>* backend) const;

  const BackendRegistryOptions options_;
  Mutex mu_;
  std::map<std::string, std::unique_ptr<Backend>> backends_ GUARDED_BY(mu_);
};

}  // namespace gristmill
