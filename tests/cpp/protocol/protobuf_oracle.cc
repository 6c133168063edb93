// SPDX-License-Identifier: Apache-2.0
#include "protocol/protobuf_oracle.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/stubs/logging.h>

#include <algorithm>
#include <cstring>

#include "inference.pb.h"
#include "protocol/infer_request_decoder.h"

namespace gristmill {
namespace {

using inference::ModelInferRequest;
using Input = ModelInferRequest::InferInputTensor;

/// Groups nested deeper than the decoder follows are no matter of agreement, so libprotobuf may follow fewer.
constexpr int kMaxNesting = 50;

struct Decoded {
  InferRequest request;
  Status status;

  /// By the end of the message: names that the caller chose stand before it.
  bool IsDamaged() const {
    return status.message().ends_with("does not decode") || status.message().ends_with("does not decode as protobuf");
  }
};

void Decode(std::span<const std::byte> bytes, Decoded* decoded) {
  static BufferPool pool({});
  decoded->request.received = ReceivedBytes(bytes, nullptr, nullptr);
  decoded->status = DecodeInferRequest(&decoded->request, &pool);
}

bool ParseShallow(std::span<const std::byte> bytes, ModelInferRequest* message) {
  google::protobuf::io::CodedInputStream stream(reinterpret_cast<const uint8_t*>(bytes.data()),
                                                static_cast<int>(bytes.size()));
  stream.SetRecursionLimit(kMaxNesting);
  return message->ParseFromCodedStream(&stream) && stream.ConsumedEntireMessage();
}

template <typename Element, typename Field>
std::string RawOf(const Field& field) {
  std::string raw;
  for (auto wire : field) {
    const auto element = static_cast<Element>(wire);
    raw.append(reinterpret_cast<const char*>(&element), sizeof element);
  }
  return raw;
}

std::string RawOfBytes(const google::protobuf::RepeatedPtrField<std::string>& field) {
  std::string raw;
  for (const std::string& element : field) {
    const auto length = static_cast<uint32_t>(element.size());
    raw.append(reinterpret_cast<const char*>(&length), sizeof length);
    raw += element;
  }
  return raw;
}

std::string RawOf(const inference::InferTensorContents& contents, DataType dtype) {
  switch (dtype) {
    case DataType::kBool:
      return RawOf<uint8_t>(contents.bool_contents());
    case DataType::kInt8:
      return RawOf<int8_t>(contents.int_contents());
    case DataType::kInt16:
      return RawOf<int16_t>(contents.int_contents());
    case DataType::kInt32:
      return RawOf<int32_t>(contents.int_contents());
    case DataType::kInt64:
      return RawOf<int64_t>(contents.int64_contents());
    case DataType::kUint8:
      return RawOf<uint8_t>(contents.uint_contents());
    case DataType::kUint16:
      return RawOf<uint16_t>(contents.uint_contents());
    case DataType::kUint32:
      return RawOf<uint32_t>(contents.uint_contents());
    case DataType::kUint64:
      return RawOf<uint64_t>(contents.uint64_contents());
    case DataType::kFp32:
      return RawOf<float>(contents.fp32_contents());
    case DataType::kFp64:
      return RawOf<double>(contents.fp64_contents());
    case DataType::kBytes:
      return RawOfBytes(contents.bytes_contents());
    case DataType::kFp16:
    case DataType::kBf16:
    case DataType::kInvalid:
      break;
  }
  return {};
}

std::string DifferenceOfInput(const InputTensor& ours, const Input& theirs, const std::string& raw) {
  if (ours.name != theirs.name()) return "the name of an input";
  if (DataTypeName(ours.tensor.dtype) != theirs.datatype()) return "a datatype";
  const auto dims = ours.tensor.shape.dims();
  if (!std::equal(dims.begin(), dims.end(), theirs.shape().begin(), theirs.shape().end())) return "a shape";
  const auto data = ours.tensor.data;
  return raw.size() == data.size() && (raw.empty() || std::memcmp(raw.data(), data.data(), raw.size()) == 0)
             ? ""
             : "the elements of an input";
}

/// Timeouts are compared up to 36 years; longer ones may count as none.
constexpr int64_t kLongestUs = (int64_t{1} << 60) / 1000;

/// 0: none that is compared.
int64_t TimeoutUs(const ModelInferRequest& message) {
  const auto timeout = message.parameters().find("timeout");
  if (timeout == message.parameters().end()) return 0;
  const bool is_signed = timeout->second.parameter_choice_case() == inference::InferParameter::kInt64Param;
  const uint64_t us = is_signed ? static_cast<uint64_t>(timeout->second.int64_param()) : timeout->second.uint64_param();
  return us > kLongestUs ? 0 : static_cast<int64_t>(us);
}

std::string Difference(const InferRequest& ours, const ModelInferRequest& theirs) {
  if (ours.model_name != theirs.model_name()) return "model_name";
  if (ours.model_version != theirs.model_version()) return "model_version";
  if (ours.id != theirs.id()) return "id";
  if ((ours.timeout_us > kLongestUs ? 0 : ours.timeout_us) != TimeoutUs(theirs)) return "the timeout";
  if (!std::ranges::equal(ours.requested_outputs, theirs.outputs(), {}, {}, [](const auto& o) { return o.name(); })) {
    return "the requested outputs";
  }
  if (ours.inputs.size() != static_cast<size_t>(theirs.inputs_size())) return "the number of inputs";
  for (int i = 0; i < theirs.inputs_size(); ++i) {
    const InputTensor& input = ours.inputs[static_cast<size_t>(i)];
    const std::string raw = theirs.raw_input_contents_size() > 0
                                ? theirs.raw_input_contents(i)
                                : RawOf(theirs.inputs(i).contents(), input.tensor.dtype);
    if (std::string what = DifferenceOfInput(input, theirs.inputs(i), raw); !what.empty()) return what;
  }
  return "";
}

}  // namespace

std::string DisagreementWithProtobuf(std::span<const std::byte> bytes) {
  // Otherwise it prints every string that is not UTF-8.
  [[maybe_unused]] static auto* const printer = google::protobuf::SetLogHandler(nullptr);
  Decoded ours;
  Decode(bytes, &ours);
  ModelInferRequest theirs;
  const bool parsed = theirs.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
  if (ours.status.ok()) {
    if (!parsed) return "the decoder accepts what libprotobuf does not parse";
    if (std::string what = Difference(ours.request, theirs); !what.empty()) return "they differ in " + what;
  }
  if (!ParseShallow(bytes, &theirs)) return "";
  const std::string again = theirs.SerializeAsString();
  Decoded ours_again;
  Decode(std::as_bytes(std::span(again)), &ours_again);
  if (ours_again.IsDamaged()) return "the decoder refuses what libprotobuf wrote: " + ours_again.status.message();
  if (!ours_again.status.ok()) {
    return ours.status.ok() ? "accepted, but not once written again: " + ours_again.status.message() : "";
  }
  const std::string what = Difference(ours_again.request, theirs);
  return what.empty() ? "" : "once written again, they differ in " + what;
}

}  // namespace gristmill
