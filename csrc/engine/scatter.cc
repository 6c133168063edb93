// SPDX-License-Identifier: Apache-2.0
#include "engine/scatter.h"

namespace gristmill {
namespace {

bool HasRows(const TensorView& tensor, int64_t rows) { return tensor.shape.rank() > 0 && tensor.shape[0] == rows; }

TensorView Rows(const BatchOutput& output, const RowRange& rows) {
  TensorView part = output.tensor;
  part.shape[0] = rows.count;
  const size_t first = static_cast<size_t>(rows.first);
  const size_t count = static_cast<size_t>(rows.count);
  if (part.dtype == DataType::kBytes) {
    const size_t begin = output.row_offsets[first];
    part.data = part.data.subspan(begin, output.row_offsets[first + count] - begin);
  } else {
    const size_t row_bytes = part.data.size() / static_cast<size_t>(rows.batch_rows);
    part.data = part.data.subspan(first * row_bytes, count * row_bytes);
  }
  return part;
}

}  // namespace

Status CheckSplittable(const ModelConfig& config, const BatchResult& result, int64_t batch_rows) {
  for (size_t i = 0; i < result.outputs.size(); ++i) {
    const TensorView& tensor = result.outputs[i].tensor;
    if (HasRows(tensor, batch_rows)) continue;
    return Internal("output '" + config.outputs[i].name + "' of model '" + config.name + "' has shape " +
                    tensor.shape.ToString() + " for a batch of " + std::to_string(batch_rows) +
                    " rows and cannot be split by rows; set max_batch_size: 0 for this model");
  }
  return Status::Ok();
}

void ScatterOutputs(const ModelConfig& config, const BatchResult& result, const InferRequest& request, RowRange rows,
                    std::vector<OutputTensor>* outputs) {
  outputs->clear();
  for (uint32_t index : request.output_indices) {
    const BatchOutput& output = result.outputs[index];
    const bool whole = rows.only_request || !HasRows(output.tensor, rows.batch_rows);
    outputs->push_back({config.outputs[index].name, whole ? output.tensor : Rows(output, rows)});
  }
}

}  // namespace gristmill
