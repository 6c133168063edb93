// SPDX-License-Identifier: Apache-2.0
// What the wire costs: one ModelInferRequest decoded and one ModelInferResponse encoded, for a small and for a large
// tensor, and the same bytes through libprotobuf's generated classes in the same run, in turns.
//
//   protocol_bench
//
// Both sides reuse their objects and write into the same kind of memory, and before anything is timed they must agree
// on every byte. libprotobuf's decoding makes one copy of the tensor, as its API demands.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "inference.pb.h"
#include "protocol/infer_request_decoder.h"
#include "protocol/infer_response_encoder.h"
#include "timing.h"

namespace {

using gristmill::BufferPool;
using gristmill::InferRequest;
using gristmill::InferResponse;
using gristmill::OutputTensor;
using gristmill::ReceivedBytes;
using gristmill::Shape;
using gristmill::Status;
using micro::Keep;
using micro::MedianNs;
using micro::Must;

struct Case {
  const char* name;
  Shape shape;
};

void PutVarint(std::string* out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) *out += static_cast<char>(value | 0x80);
  *out += static_cast<char>(value);
}

void PutBytes(std::string* out, int field, const std::string& bytes) {
  PutVarint(out, static_cast<uint64_t>(field << 3 | 2));
  PutVarint(out, bytes.size());
  *out += bytes;
}

std::string MakeRequest(const Shape& shape) {
  std::string dims, input, request;
  for (int64_t dim : shape.dims()) PutVarint(&dims, static_cast<uint64_t>(dim));
  PutBytes(&input, 1, "x");
  PutBytes(&input, 2, "FP32");
  PutBytes(&input, 3, dims);
  PutBytes(&request, 1, "small_mlp");
  PutBytes(&request, 5, input);
  PutBytes(&request, 7, std::string(static_cast<size_t>(shape.ElementCount()) * sizeof(float), '\1'));
  return request;
}

/// Decodes `bytes` and answers with the inputs; every buffer is kept for the next time.
class Ours {
 public:
  explicit Ours(const std::string& bytes) : bytes_(std::as_bytes(std::span(bytes))) {
    Decode();
    for (const auto& input : request_.inputs) outputs_.push_back({input.name, input.tensor});
    encoded_.resize(EncodedSizeBytes(Answer()));
  }

  void Decode() {
    request_.Reset();
    request_.received = ReceivedBytes(bytes_, nullptr, nullptr);
    Must(DecodeInferRequest(&request_, &pool_).ok(), "the request does not decode");
    Keep(request_.inputs.data());
  }

  void Encode() {
    const InferResponse answer = Answer();
    Must(EncodedSizeBytes(answer) == encoded_.size(), "the answer has another size");
    EncodeInto(answer, reinterpret_cast<std::byte*>(encoded_.data()));
    Keep(encoded_.data());
  }

  const std::string& encoded() const { return encoded_; }

 private:
  InferResponse Answer() const { return {.model_name = "small_mlp", .model_version = "1", .outputs = outputs_}; }

  std::span<const std::byte> bytes_;
  BufferPool pool_{{}};
  InferRequest request_;
  std::vector<OutputTensor> outputs_;
  std::string encoded_;
};

class Protobuf {
 public:
  explicit Protobuf(const std::string& bytes) : bytes_(bytes) {
    Decode();
    Encode();
  }

  void Decode() {
    Must(request_.ParseFromArray(bytes_.data(), static_cast<int>(bytes_.size())), "libprotobuf does not decode it");
    Keep(&request_);
  }

  void Encode() {
    response_.Clear();
    response_.set_model_name("small_mlp");
    response_.set_model_version("1");
    for (int i = 0; i < request_.inputs_size(); ++i) {
      const auto& input = request_.inputs(i);
      auto& output = *response_.add_outputs();
      output.set_name(input.name());
      output.set_datatype(input.datatype());
      *output.mutable_shape() = input.shape();
      *response_.add_raw_output_contents() = request_.raw_input_contents(i);
    }
    encoded_.resize(response_.ByteSizeLong());
    Must(response_.SerializeToArray(encoded_.data(), static_cast<int>(encoded_.size())), "libprotobuf does not encode");
    Keep(encoded_.data());
  }

  const std::string& encoded() const { return encoded_; }

 private:
  const std::string& bytes_;
  inference::ModelInferRequest request_;
  inference::ModelInferResponse response_;
  std::string encoded_;
};

void Run(const Case& one) {
  const std::string bytes = MakeRequest(one.shape);
  Ours ours(bytes);
  ours.Encode();
  std::vector<std::function<void()>> works = {[&] { ours.Decode(); }, [&] { ours.Encode(); }};
  Protobuf peer(bytes);
  Must(peer.encoded() == ours.encoded(), "libprotobuf's answer has other bytes");
  works.push_back([&] { peer.Decode(); });
  works.push_back([&] { peer.Encode(); });
  const std::vector<double> ns = MedianNs(works);
  std::printf("%-18s %8zu bytes   decode %9.1f ns   encode %9.1f ns   both %9.1f ns\n", one.name, bytes.size(), ns[0],
              ns[1], ns[0] + ns[1]);
  std::printf("%-18s %8s         decode %9.1f ns   encode %9.1f ns   both %9.1f ns   (%.1fx)\n", "  libprotobuf", "",
              ns[2], ns[3], ns[2] + ns[3], (ns[2] + ns[3]) / (ns[0] + ns[1]));
}

}  // namespace

int main() {
  for (const Case& one : {Case{"FP32[1,16]", {1, 16}}, Case{"FP32[1,3,112,112]", {1, 3, 112, 112}}}) Run(one);
  return 0;
}
