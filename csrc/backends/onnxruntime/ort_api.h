// SPDX-License-Identifier: Apache-2.0
// ONNX Runtime's C interface, found at run time, with owners for its objects and Status for its errors.
//
// Thread-safety: OrtApi is a table of functions, any thread may use it. Handles are plain values.
//
//   OrtRuntime runtime;
//   Status status = LoadOrtRuntime("libonnxruntime.so.1.32.0", &runtime);
//   OrtHandle<OrtEnv, &OrtApi::ReleaseEnv> env(*runtime.api);
//   status = OrtStatusToStatus(*runtime.api, runtime.api->CreateEnv(level, "name", env.Receive()), "creating the env");
#pragma once

#include <onnxruntime_c_api.h>

#include <string>
#include <string_view>
#include <utility>

#include "core/data_type.h"
#include "core/status.h"

namespace gristmill {

/// The version of the C interface asked for: the oldest that has every function used here, so that any newer library
/// will do. Its table is only ever appended to.
inline constexpr uint32_t kOrtApiVersion = 17;
static_assert(ORT_API_VERSION >= kOrtApiVersion,
              "the header onnxruntime_c_api.h is too old; take one from 1.21 or newer");

struct OrtRuntime {
  const OrtApi* api = nullptr;
  std::string version;
};

/// Opens the library, for good: its threads and static objects do not survive an unload.
/// Errors: kUnavailable when it cannot be opened, is not ONNX Runtime, or is too old.
Status LoadOrtRuntime(const std::string& library_path, OrtRuntime* runtime);

/// Consumes `status`; null is OK. `doing` begins the message.
Status OrtStatusToStatus(const OrtApi& api, OrtStatus* status, std::string_view doing);

/// kInvalid for the types that the protocol does not have.
DataType FromOrtType(ONNXTensorElementDataType type);
ONNXTensorElementDataType ToOrtType(DataType type);

/// Owns one object of ONNX Runtime.
template <typename Object, void (ORT_API_CALL* OrtApi::*kRelease)(Object*)>
class OrtHandle {
 public:
  explicit OrtHandle(const OrtApi& api) : api_(&api) {}
  OrtHandle(OrtHandle&& other) noexcept : api_(other.api_), object_(std::exchange(other.object_, nullptr)) {}
  OrtHandle& operator=(OrtHandle&& other) noexcept {
    std::swap(api_, other.api_);
    std::swap(object_, other.object_);
    return *this;
  }
  ~OrtHandle() { Reset(nullptr); }

  Object* get() const { return object_; }

  /// Releases what is held and owns `object` instead.
  void Reset(Object* object) {
    if (object_ != nullptr) (api_->*kRelease)(object_);
    object_ = object;
  }

  /// Releases what is held; for a function that writes the new object through a pointer.
  Object** Receive() {
    Reset(nullptr);
    return &object_;
  }

 private:
  const OrtApi* api_;
  Object* object_ = nullptr;
};

using OrtEnvHandle = OrtHandle<OrtEnv, &OrtApi::ReleaseEnv>;
using OrtThreadingOptionsHandle = OrtHandle<OrtThreadingOptions, &OrtApi::ReleaseThreadingOptions>;
using OrtMemoryInfoHandle = OrtHandle<OrtMemoryInfo, &OrtApi::ReleaseMemoryInfo>;
using OrtSessionOptionsHandle = OrtHandle<OrtSessionOptions, &OrtApi::ReleaseSessionOptions>;
using OrtSessionHandle = OrtHandle<OrtSession, &OrtApi::ReleaseSession>;
using OrtTypeInfoHandle = OrtHandle<OrtTypeInfo, &OrtApi::ReleaseTypeInfo>;
using OrtShapeInfoHandle = OrtHandle<OrtTensorTypeAndShapeInfo, &OrtApi::ReleaseTensorTypeAndShapeInfo>;
using OrtIoBindingHandle = OrtHandle<OrtIoBinding, &OrtApi::ReleaseIoBinding>;
using OrtRunOptionsHandle = OrtHandle<OrtRunOptions, &OrtApi::ReleaseRunOptions>;
using OrtValueHandle = OrtHandle<OrtValue, &OrtApi::ReleaseValue>;

}  // namespace gristmill

/// Returns from the calling function when an ONNX Runtime call fails.
#define GRISTMILL_RETURN_IF_ORT_FAILS(api, call, doing)                   \
  do {                                                                    \
    if (OrtStatus* ort_status_ = (call); ort_status_ != nullptr) {        \
      return ::gristmill::OrtStatusToStatus((api), ort_status_, (doing)); \
    }                                                                     \
  } while (false)
