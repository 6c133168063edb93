// SPDX-License-Identifier: Apache-2.0
// Any bytes at all: the decoder answers with a Status, every view it hands out lies in memory the request owns and is
// as long as its shape says, what it accepted can be encoded as an answer, and libprotobuf agrees.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "fuzz/checks.h"
#include "protocol/infer_request_decoder.h"
#include "protocol/infer_response_encoder.h"
#include "protocol/protobuf_oracle.h"

namespace {

using namespace gristmill;  // NOLINT

bool Inside(std::span<const std::byte> part, std::span<const std::byte> whole) {
  return part.empty() || (part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size());
}

bool Owned(std::span<const std::byte> part, const InferRequest& request) {
  return Inside(part, request.received.bytes()) ||
         std::ranges::any_of(request.decoded, [&](const Buffer& buffer) { return Inside(part, buffer.view()); });
}

std::span<const std::byte> AsBytes(std::string_view text) { return std::as_bytes(std::span(text)); }

void CheckInput(const InputTensor& input, const InferRequest& request) {
  const TensorView& tensor = input.tensor;
  Check(Owned(AsBytes(input.name), request) && Owned(tensor.data, request));
  CheckSize(tensor);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static BufferPool pool({});
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
  if (const std::string disagreement = DisagreementWithProtobuf(bytes); !disagreement.empty()) {
    std::fprintf(stderr, "%s\n", disagreement.c_str());
    abort();
  }
  InferRequest request;
  request.received = ReceivedBytes(bytes, nullptr, nullptr);
  const Status status = DecodeInferRequest(&request, &pool);
  if (!status.ok()) {
    Check(!status.message().empty());
    return 0;
  }
  Check(!request.model_name.empty());
  std::vector<OutputTensor> echo;
  for (const InputTensor& input : request.inputs) {
    CheckInput(input, request);
    echo.push_back({input.name, input.tensor});
  }
  const InferResponse response{
      .model_name = request.model_name, .model_version = request.model_version, .id = request.id, .outputs = echo};
  Buffer encoded = pool.Acquire(EncodedSizeBytes(response));
  Check(EncodeInto(response, encoded.data()) == encoded.data() + encoded.size());
  return 0;
}
