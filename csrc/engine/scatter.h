// SPDX-License-Identifier: Apache-2.0
// Scatter: one request's rows out of a batch's outputs, by the shapes that the model actually produced.
#pragma once

#include <cstdint>
#include <vector>

#include "core/backend.h"
#include "core/infer_request.h"
#include "core/model_config.h"
#include "core/status.h"

namespace gristmill {

/// Which rows of a batch belong to a request.
struct RowRange {
  int64_t first = 0;
  int64_t count = 0;
  int64_t batch_rows = 0;
  bool only_request = false;
};

/// Checks that every output of a batch of several requests can be split by rows. kInternal, naming the output, if not.
Status CheckSplittable(const ModelConfig& config, const BatchResult& result, int64_t batch_rows);

/// Fills `outputs` with views of the rows of `request`, in the order of its output_indices. An output whose first
/// dimension is not the batch's rows is given whole; CheckSplittable has made sure that it has one reader.
void ScatterOutputs(const ModelConfig& config, const BatchResult& result, const InferRequest& request, RowRange rows,
                    std::vector<OutputTensor>* outputs);

}  // namespace gristmill
