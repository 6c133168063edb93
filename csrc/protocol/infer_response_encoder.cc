// SPDX-License-Identifier: Apache-2.0
#include "protocol/infer_response_encoder.h"

#include <bit>
#include <cstring>
#include <span>
#include <string_view>

namespace gristmill {
namespace {

// Fields of ModelInferResponse, then of InferOutputTensor. All are length-delimited and below 16: their tags are one
// byte.
constexpr uint32_t kModelName = 1;
constexpr uint32_t kModelVersion = 2;
constexpr uint32_t kId = 3;
constexpr uint32_t kParameters = 4;
constexpr uint32_t kOutputs = 5;
constexpr uint32_t kRawOutputContents = 6;
// Of ModelStreamInferResponse.
constexpr uint32_t kErrorMessage = 1;
constexpr uint32_t kInferResponse = 2;
constexpr uint32_t kTensorName = 1;
constexpr uint32_t kTensorDatatype = 2;
constexpr uint32_t kTensorShape = 3;

size_t VarintSize(uint64_t value) { return (static_cast<size_t>(std::bit_width(value | 1)) + 6) / 7; }
size_t FieldSize(size_t size) { return 1 + VarintSize(size) + size; }
/// proto3 leaves empty strings out.
size_t TextSize(std::string_view text) { return text.empty() ? 0 : FieldSize(text.size()); }

std::byte* PutVarint(std::byte* out, uint64_t value) {
  while (value >= 0x80) {
    *out++ = static_cast<std::byte>(value | 0x80);
    value >>= 7;
  }
  *out++ = static_cast<std::byte>(value);
  return out;
}

std::byte* PutHead(std::byte* out, uint32_t field, size_t size) {
  *out++ = static_cast<std::byte>(field << 3 | 2);
  return PutVarint(out, size);
}

std::byte* PutBytes(std::byte* out, uint32_t field, const void* data, size_t size) {
  out = PutHead(out, field, size);
  if (size > 0) std::memcpy(out, data, size);
  return out + size;
}

std::byte* PutText(std::byte* out, uint32_t field, std::string_view text) {
  return text.empty() ? out : PutBytes(out, field, text.data(), text.size());
}

/// An entry of the map of parameters: a boolean.
constexpr std::string_view kFinalResponse = "triton_final_response";
constexpr size_t kBoolParameterSize = 2;
constexpr size_t kFinalitySize = 2 + kFinalResponse.size() + 2 + kBoolParameterSize;

size_t FinalitySize(Finality finality) { return finality == Finality::kOnly ? 0 : FieldSize(kFinalitySize); }

std::byte* PutFinality(std::byte* out, Finality finality) {
  if (finality == Finality::kOnly) return out;
  out = PutHead(out, kParameters, kFinalitySize);
  out = PutText(out, 1, kFinalResponse);
  out = PutHead(out, 2, kBoolParameterSize);
  *out++ = std::byte{1 << 3};  // bool_param, a varint
  return PutVarint(out, finality == Finality::kLast ? 1 : 0);
}

size_t DimensionsSize(const Shape& shape) {
  size_t size = 0;
  for (int64_t dimension : shape.dims()) size += VarintSize(static_cast<uint64_t>(dimension));
  return size;
}

size_t TensorSize(const OutputTensor& output) {
  const size_t dimensions = DimensionsSize(output.tensor.shape);
  return TextSize(output.name) + TextSize(DataTypeName(output.tensor.dtype)) +
         (dimensions == 0 ? 0 : FieldSize(dimensions));
}

std::byte* PutTensor(std::byte* out, const OutputTensor& output) {
  out = PutHead(out, kOutputs, TensorSize(output));
  out = PutText(out, kTensorName, output.name);
  out = PutText(out, kTensorDatatype, DataTypeName(output.tensor.dtype));
  if (output.tensor.shape.rank() == 0) return out;
  out = PutHead(out, kTensorShape, DimensionsSize(output.tensor.shape));
  for (int64_t dimension : output.tensor.shape.dims()) out = PutVarint(out, static_cast<uint64_t>(dimension));
  return out;
}

}  // namespace

size_t EncodedSizeBytes(const InferResponse& response) {
  size_t size = TextSize(response.model_name) + TextSize(response.model_version) + TextSize(response.id) +
                FinalitySize(response.finality);
  for (const OutputTensor& output : response.outputs) {
    size += FieldSize(TensorSize(output)) + FieldSize(output.tensor.data.size());
  }
  return size;
}

std::byte* EncodeInto(const InferResponse& response, std::byte* out) {
  out = PutText(out, kModelName, response.model_name);
  out = PutText(out, kModelVersion, response.model_version);
  out = PutText(out, kId, response.id);
  out = PutFinality(out, response.finality);
  for (const OutputTensor& output : response.outputs) out = PutTensor(out, output);
  for (const OutputTensor& output : response.outputs) {
    out = PutBytes(out, kRawOutputContents, output.tensor.data.data(), output.tensor.data.size());
  }
  return out;
}

Buffer EncodeInferResponse(const InferResponse& response, BufferPool* pool) {
  Buffer buffer = pool->TryAcquire(EncodedSizeBytes(response));
  if (buffer.is_null()) return buffer;
  EncodeInto(response, buffer.data());
  return buffer;
}

Buffer EncodeStreamInferResponse(const InferResponse& response, BufferPool* pool) {
  const size_t size = EncodedSizeBytes(response);
  Buffer buffer = pool->TryAcquire(FieldSize(size));
  if (buffer.is_null()) return buffer;
  EncodeInto(response, PutHead(buffer.data(), kInferResponse, size));
  return buffer;
}

Buffer EncodeStreamInferError(std::string_view message, std::string_view id, BufferPool* pool) {
  const size_t id_size = TextSize(id);
  Buffer buffer = pool->TryAcquire(FieldSize(message.size()) + FieldSize(id_size));
  if (buffer.is_null()) return buffer;
  std::byte* out = PutBytes(buffer.data(), kErrorMessage, message.data(), message.size());
  PutText(PutHead(out, kInferResponse, id_size), kId, id);
  return buffer;
}

}  // namespace gristmill
