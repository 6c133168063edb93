// SPDX-License-Identifier: Apache-2.0
// ModelConfig: what the engine and the backends need to know of one model version. Plain data, checked by whoever makes
// it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/data_type.h"

namespace gristmill {

/// A tensor as declared. -1 is any size.
struct TensorSpec {
  std::string name;
  DataType dtype = DataType::kInvalid;
  std::vector<int64_t> dims;
};

/// What a model file says of itself: dims as in the file, a batch dimension included where there is one.
struct ModelSignature {
  std::vector<TensorSpec> inputs;
  std::vector<TensorSpec> outputs;
};

struct BatchingOptions {
  /// Whether requests may be combined. Off, every request runs alone.
  bool dynamic = false;
  /// How long the oldest request may wait for company. 0: never; a batch is what is there when an executor is free.
  int64_t max_queue_delay_us = 0;
  /// Sizes in rows worth sending at once, ascending. Empty: only the largest.
  std::vector<int64_t> preferred_rows;
  /// Requests that may wait. 0: no limit.
  int64_t max_queue_size = 0;
};

struct ModelConfig {
  std::string name;
  int64_t version = 0;
  /// Rows per batch; 0: the model has no batch dimension and every request runs alone.
  int64_t max_batch_size = 0;
  /// dims without the batch dimension when max_batch_size > 0.
  std::vector<TensorSpec> inputs;
  std::vector<TensorSpec> outputs;
  BatchingOptions batching;
  /// Executors, each with a thread of its own. At least 1.
  int instance_count = 1;
};

/// Options for a backend or a model, by name.
using Parameters = std::map<std::string, std::string>;

}  // namespace gristmill
