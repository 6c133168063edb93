// SPDX-License-Identifier: Apache-2.0
#include "engine/backend_registry.h"

#include <dlfcn.h>

#include <algorithm>

namespace gristmill {
namespace {

bool IsName(const std::string& name) {
  return !name.empty() &&
         std::ranges::all_of(name, [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; });
}

std::string LastLoaderError() {
  const char* error = dlerror();
  return error == nullptr ? "unknown error" : error;
}

}  // namespace

Status BackendRegistry::Get(const std::string& name, Backend** backend) {
  MutexLock lock(mu_);
  auto found = backends_.find(name);
  if (found == backends_.end()) {
    std::unique_ptr<Backend> loaded;
    if (Status status = Load(name, &loaded); !status.ok()) return status;
    found = backends_.emplace(name, std::move(loaded)).first;
  }
  *backend = found->second.get();
  return Status::Ok();
}

Status BackendRegistry::Load(const std::string& name, std::unique_ptr<Backend>* backend) const {
  // The name becomes part of a path, so nothing but a plain word may be in it.
  if (!IsName(name)) {
    return InvalidArgument("'" + name + "' is not a backend name; expected lower-case letters, digits and '_'");
  }
  const std::string path = options_.plugin_directory + "/gristmill_backend_" + name + ".so";
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    return Unavailable("backend '" + name + "' is not available in this build: " + LastLoaderError());
  }
  auto create = reinterpret_cast<CreateBackendFunction>(dlsym(library, "gristmill_create_backend"));
  if (create == nullptr) {
    return Unavailable("backend '" + name + "' is not a Gristmill plugin: " + LastLoaderError());
  }
  const auto parameters = options_.parameters.find(name);
  return create(kBackendAbiVersion,
                {.clock = options_.clock,
                 .parameters = parameters == options_.parameters.end() ? Parameters{} : parameters->second,
                 .caller = options_.caller},
                backend);
}

}  // namespace gristmill
