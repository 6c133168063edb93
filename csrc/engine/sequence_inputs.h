// SPDX-License-Identifier: Apache-2.0
// SequenceInputs: the tensors that a model of sequences gets beside what its callers send: controls and states.
//
// Ownership: what Append gives a request are views, on this object and on the sequence's values, which both must live
// until the request has been run. Thread-safety: const after construction; the values belong to one sequence, of which
// one request is run at a time.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/infer_request.h"
#include "core/model_config.h"
#include "core/status.h"
#include "core/tensor.h"

namespace gristmill {

/// What the server knows of one sequence.
struct SequenceValues {
  struct State {
    Shape shape;
    std::vector<std::byte> data;
  };
  std::vector<std::byte> correlation_id;  // in the form of the model's input for it
  std::vector<State> states;              // in the order of SequenceOptions::states
};

class SequenceInputs {
 public:
  /// `config` has SequenceOptions. It outlives this object.
  explicit SequenceInputs(const ModelConfig& config);

  /// The configuration of the model as its backend sees it: with controls and states among inputs and outputs.
  static ModelConfig WithSequenceTensors(const ModelConfig& config);

  /// Sets the correlation id. kInvalidArgument if the model cannot be told of such a one.
  Status Name(const SequenceTag& tag, SequenceValues* values) const;

  /// Sets all states to their initial values.
  void Reset(SequenceValues* values) const;

  /// Appends controls and states to the inputs of `request`, and asks for the outputs that are states. `outputs`: those
  /// that the caller wants; they come first in the answer.
  void Append(const SequenceValues& values, bool starts, bool ends, InferRequest* request) const;

  /// Takes away what Append has given.
  void Remove(size_t inputs, size_t requested_outputs, InferRequest* request) const;

  /// Keeps the states that are among the outputs of a run.
  void Keep(std::span<const OutputTensor> outputs, SequenceValues* values) const;

 private:
  struct Control {
    ControlInput::Kind kind;
    std::string_view name;
    DataType dtype;
    Shape shape;
    std::vector<std::byte> no;
    std::vector<std::byte> yes;
  };

  const ModelConfig& config_;
  std::vector<Control> controls_;
};

}  // namespace gristmill
