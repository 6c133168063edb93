// SPDX-License-Identifier: Apache-2.0
// SimInstance: runs a SimModelFile. See sim_model_file.h for what it does.
#pragma once

#include <span>
#include <vector>

#include "backends/batch_io.h"
#include "backends/sim/sim_model_file.h"
#include "core/backend.h"

namespace gristmill {

class SimInstance final : public BackendInstance {
 public:
  /// `file` and `clock` outlive the instance. `config` fits the file's signature.
  SimInstance(const SimModelFile& file, const ModelConfig& config, Clock& clock);

  Status Execute(const Batch& batch, BatchResult* result) override;

 private:
  struct Output {
    size_t index;  // in the file
    AlignedBuffer buffer;
    BytesOutput bytes;
  };

  Status CheckPoison() const;
  BatchOutput Produce(Output& output, int64_t batch_rows);

  const SimModelFile& file_;
  Clock& clock_;
  std::vector<size_t> input_positions_;  // per input of the file, its place in the configuration
  std::vector<AlignedBuffer> gather_buffers_;
  std::vector<TensorView> inputs_;  // in the file's order
  std::vector<Output> outputs_;     // in the configuration's order
  int64_t executions_ = 0;
};

}  // namespace gristmill
