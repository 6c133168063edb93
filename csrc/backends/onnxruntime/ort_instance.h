// SPDX-License-Identifier: Apache-2.0
// OrtInstance: an executor's own binding of a shared session, with the buffers it gathers into.
//
// Inputs are bound anew only when their address or shape changed. Outputs are bound to the CPU and not to memory, so
// that ONNX Runtime allocates them by the shape they turn out to have: declared shapes lie.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backends/batch_io.h"
#include "backends/onnxruntime/ort_api.h"
#include "backends/onnxruntime/ort_model.h"
#include "core/backend.h"

namespace gristmill {

class OrtInstance final : public BackendInstance {
 public:
  /// `context` and `session` outlive the instance.
  static Status Create(const OrtContext& context, OrtSession* session, const ModelConfig& config,
                       std::unique_ptr<BackendInstance>* instance);

  Status Execute(const Batch& batch, BatchResult* result) override;

 private:
  struct Input {
    TensorSpec spec;
    AlignedBuffer buffer;
    OrtValueHandle value;
    TensorView bound;  // what `value` holds; of kBytes only the shape
  };
  struct Output {
    TensorSpec spec;
    OrtValueHandle value;
    std::vector<std::byte> content;
    std::vector<size_t> element_offsets;
    BytesOutput bytes;
  };

  OrtInstance(const OrtContext& context, OrtSession* session)
      : context_(context),
        session_(session),
        memory_info_(context.api),
        run_options_(context.api),
        binding_(context.api) {}

  Status BindTensor(const Batch& batch, size_t index);
  Status BindStrings(const Batch& batch, size_t index);
  Status FillStrings(const Batch& batch, size_t index);
  Status ReceiveOutputs();
  Status ReadOutput(Output& output, BatchOutput* result);
  Status ReadStrings(Output& output, const Shape& shape, BatchOutput* result);

  const OrtContext context_;
  OrtSession* const session_;
  OrtAllocator* allocator_ = nullptr;  // the process's own
  OrtMemoryInfoHandle memory_info_;
  OrtRunOptionsHandle run_options_;
  std::vector<Input> inputs_;    // in the configuration's order
  std::vector<Output> outputs_;  // in the configuration's order
  OrtIoBindingHandle binding_;
};

}  // namespace gristmill
