// SPDX-License-Identifier: Apache-2.0
#include "backends/sim/sim_instance.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <type_traits>

#include "backends/plugin.h"

namespace gristmill {
namespace {

size_t PositionOf(const std::vector<TensorSpec>& specs, const std::string& name) {
  return static_cast<size_t>(std::ranges::find(specs, name, &TensorSpec::name) - specs.begin());
}

template <typename Element>
void SumRows(const TensorView& input, size_t rows, std::byte* sums) {
  // Unsigned, so that an overflow wraps around instead of being undefined.
  using Sum = typename std::conditional_t<std::is_integral_v<Element>, std::make_unsigned<Element>,
                                          std::type_identity<Element>>::type;
  const size_t row_elements = rows == 0 ? 0 : input.data.size() / sizeof(Element) / rows;
  const std::byte* at = input.data.data();
  for (size_t row = 0; row < rows; ++row) {
    Sum sum{};
    for (size_t i = 0; i < row_elements; ++i, at += sizeof(Element)) {
      Sum element;
      std::memcpy(&element, at, sizeof(element));
      sum = static_cast<Sum>(sum + element);
    }
    std::memcpy(sums + row * sizeof(sum), &sum, sizeof(sum));
  }
}

void SumRows(const TensorView& input, size_t rows, std::byte* sums) {
  switch (input.dtype) {
    case DataType::kUint8:
      return SumRows<uint8_t>(input, rows, sums);
    case DataType::kUint16:
      return SumRows<uint16_t>(input, rows, sums);
    case DataType::kUint32:
      return SumRows<uint32_t>(input, rows, sums);
    case DataType::kUint64:
      return SumRows<uint64_t>(input, rows, sums);
    case DataType::kInt8:
      return SumRows<int8_t>(input, rows, sums);
    case DataType::kInt16:
      return SumRows<int16_t>(input, rows, sums);
    case DataType::kInt32:
      return SumRows<int32_t>(input, rows, sums);
    case DataType::kInt64:
      return SumRows<int64_t>(input, rows, sums);
    case DataType::kFp32:
      return SumRows<float>(input, rows, sums);
    case DataType::kFp64:
      return SumRows<double>(input, rows, sums);
    default:
      return;  // refused when the file was read
  }
}

bool Contains(const TensorView& tensor, std::span<const std::byte> element) {
  bool found = false;
  if (tensor.dtype == DataType::kBytes) {
    ForEachBytesElement(tensor.data, [&](auto bytes) { found = found || std::ranges::equal(bytes, element); });
    return found;
  }
  for (size_t at = 0; at + element.size() <= tensor.data.size() && !found; at += element.size()) {
    found = std::ranges::equal(tensor.data.subspan(at, element.size()), element);
  }
  return found;
}

/// The tensor with `rows` rows, cut off or filled up with zeros (for kBytes: empty strings), in `buffer`.
TensorView WithRows(const TensorView& tensor, int64_t rows, AlignedBuffer* buffer) {
  TensorView resized = tensor;
  if (resized.shape.rank() > 0) resized.shape[0] = rows;
  size_t size_bytes = 0;
  if (tensor.dtype == DataType::kBytes) {
    int64_t missing = resized.shape.ElementCount();
    ForEachBytesElement(tensor.data, [&](auto bytes) {
      if (missing > 0) size_bytes += sizeof(uint32_t) + bytes.size(), --missing;
    });
    size_bytes += static_cast<size_t>(missing) * sizeof(uint32_t);
  } else {
    size_bytes = static_cast<size_t>(resized.shape.ElementCount()) * ElementSizeBytes(tensor.dtype);
  }
  std::byte* data = buffer->Reserve(size_bytes);
  const auto kept = tensor.data.first(std::min(size_bytes, tensor.data.size()));
  std::fill(std::ranges::copy(kept, data).out, data + size_bytes, std::byte{0});
  resized.data = {data, size_bytes};
  return resized;
}

}  // namespace

SimInstance::SimInstance(const SimModelFile& file, const ModelConfig& config, Clock& clock)
    : file_(file), clock_(clock), gather_buffers_(config.inputs.size()), inputs_(config.inputs.size()) {
  for (const TensorSpec& spec : file.signature.inputs) {
    input_positions_.push_back(PositionOf(config.inputs, spec.name));
  }
  for (const TensorSpec& spec : config.outputs) {
    outputs_.push_back({.index = PositionOf(file.signature.outputs, spec.name), .buffer = {}, .bytes = {}});
  }
}

Status SimInstance::Execute(const Batch& batch, BatchResult* result) {
  return StopExceptions([&]() -> Status {
    result->gather_start_ns = clock_.NowNs();
    for (size_t i = 0; i < inputs_.size(); ++i) {
      inputs_[i] = GatherInput(batch, input_positions_[i], &gather_buffers_[i]);
    }
    result->execute_start_ns = clock_.NowNs();
    clock_.SleepFor(SimLatencyNs(file_.latency, batch.total_rows));
    ++executions_;
    if (file_.fail_every > 0 && executions_ % file_.fail_every == 0) {
      return Internal("the simulated model fails every " + std::to_string(file_.fail_every) +
                      " executions, and this was number " + std::to_string(executions_));
    }
    if (Status status = CheckPoison(); !status.ok()) return status;
    result->outputs.resize(outputs_.size());
    for (size_t i = 0; i < outputs_.size(); ++i) result->outputs[i] = Produce(outputs_[i], batch.total_rows);
    result->execute_end_ns = clock_.NowNs();
    return Status::Ok();
  });
}

Status SimInstance::CheckPoison() const {
  for (const SimPoison& poison : file_.poisons) {
    if (Contains(inputs_[poison.input], poison.element)) {
      return InvalidArgument("input '" + file_.signature.inputs[poison.input].name +
                             "' holds the element that poisons this simulated model");
    }
  }
  return Status::Ok();
}

BatchOutput SimInstance::Produce(Output& output, int64_t batch_rows) {
  const SimOutput& rule = file_.outputs[output.index];
  TensorView tensor;
  if (rule.function == SimFunction::kIdentity) {
    // A copy even of what could be viewed: outputs outlive the request they were made from.
    const int64_t rows = RowCount(inputs_[rule.input].shape) + rule.extra_rows;
    tensor = WithRows(inputs_[rule.input], std::max<int64_t>(rows, 0), &output.buffer);
    return tensor.dtype == DataType::kBytes ? output.bytes.Index(tensor) : BatchOutput{tensor, {}};
  }
  const bool sums = rule.function == SimFunction::kRowSum;
  const int64_t rows = sums ? RowCount(inputs_[rule.input].shape) : batch_rows;
  const int64_t out_rows = std::max<int64_t>(rows + rule.extra_rows, 0);
  tensor.dtype = file_.signature.outputs[output.index].dtype;
  if (!sums || inputs_[rule.input].shape.rank() > 0) tensor.shape.PushBack(out_rows);
  const size_t element_bytes = ElementSizeBytes(tensor.dtype);
  const size_t size_bytes = static_cast<size_t>(out_rows) * element_bytes;
  std::byte* data = output.buffer.Reserve(static_cast<size_t>(std::max(rows, out_rows)) * element_bytes);
  std::fill(data, data + size_bytes, std::byte{0});
  if (sums) {
    SumRows(inputs_[rule.input], static_cast<size_t>(rows), data);
  } else {
    for (size_t row = 0; row < static_cast<size_t>(rows); ++row) {
      std::memcpy(data + row * element_bytes, &batch_rows, element_bytes);
    }
  }
  tensor.data = {data, size_bytes};
  return {tensor, {}};
}

}  // namespace gristmill
