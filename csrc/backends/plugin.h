// SPDX-License-Identifier: Apache-2.0
// What every plugin has at its border: the exported entry point, the check of what the engine hands in, and the wall
// that no exception passes.
#pragma once

#include <exception>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include "core/backend.h"

#if defined(__clang__)
// Both sides of this call are C++; only the symbol's name has to be plain.
#pragma clang diagnostic ignored "-Wreturn-type-c-linkage"
#endif

extern "C" __attribute__((visibility("default"))) gristmill::Status gristmill_create_backend(
    int abi_version, const gristmill::BackendOptions& options, std::unique_ptr<gristmill::Backend>* backend);

namespace gristmill {

/// kFailedPrecondition for another ABI version than this build's, kInvalidArgument without a clock.
inline Status CheckPluginCall(int abi_version, const BackendOptions& options) {
  if (abi_version != kBackendAbiVersion) {
    return FailedPrecondition("the plugin was built for backend ABI " + std::to_string(kBackendAbiVersion) +
                              ", the server asks for " + std::to_string(abi_version) +
                              "; install server and plugins of one build");
  }
  if (options.clock == nullptr) return InvalidArgument("BackendOptions::clock is null; a backend needs a clock");
  return Status::Ok();
}

/// Calls `body` and turns whatever it throws into a Status.
template <typename Body>
Status StopExceptions(Body&& body) noexcept {
  try {
    return std::forward<Body>(body)();
  } catch (const std::bad_alloc&) {
    return {StatusCode::kResourceExhausted, "out of memory"};
  } catch (const std::exception& error) {
    return {StatusCode::kInternal, error.what()};
  }
}

}  // namespace gristmill
