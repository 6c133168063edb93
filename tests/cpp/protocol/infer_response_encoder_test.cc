// SPDX-License-Identifier: Apache-2.0
#include "protocol/infer_response_encoder.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "protocol/wire_writer.h"

namespace gristmill {
namespace {

std::string Encode(const InferResponse& response) {
  BufferPool pool({});
  const Buffer buffer = EncodeInferResponse(response, &pool);
  EXPECT_EQ(buffer.size(), EncodedSizeBytes(response));
  return {reinterpret_cast<const char*>(buffer.data()), buffer.size()};
}

TEST(InferResponseEncoder, WritesWhatProtobufWouldWrite) {
  const std::vector<float> values = {1, 2};
  const std::string text("\1\0\0\0a", 5);
  const std::vector<OutputTensor> outputs = {
      {"score", {DataType::kFp32, Shape{2, 1}, std::as_bytes(std::span(values))}},
      {"label", {DataType::kBytes, Shape{1}, std::as_bytes(std::span(text))}}};
  const std::string expected = WireWriter()
                                   .Bytes(1, "m")
                                   .Bytes(2, "12")
                                   .Bytes(3, "id")
                                   .Message(5, WireWriter().Bytes(1, "score").Bytes(2, "FP32").Packed(3, {2, 1}))
                                   .Message(5, WireWriter().Bytes(1, "label").Bytes(2, "BYTES").Packed(3, {1}))
                                   .PackedFixed<float>(6, {1, 2})
                                   .Bytes(6, text)
                                   .text();
  EXPECT_EQ(Encode({.model_name = "m", .model_version = "12", .id = "id", .outputs = outputs}), expected);
}

TEST(InferResponseEncoder, LeavesOutWhatIsEmpty) {
  EXPECT_EQ(Encode({.model_name = "m"}), WireWriter().Bytes(1, "m").text());
  const std::vector<OutputTensor> scalar = {{"y", {DataType::kInt8, Shape{}, {}}}};
  EXPECT_EQ(Encode({.model_name = "m", .outputs = scalar}),
            WireWriter().Bytes(1, "m").Message(5, WireWriter().Bytes(1, "y").Bytes(2, "INT8")).Bytes(6, "").text());
}

TEST(InferResponseEncoder, SaysWhetherMoreAnswersCome) {
  const auto expected = [](uint64_t flag) {
    const WireWriter parameter =
        WireWriter().Bytes(1, "triton_final_response").Message(2, WireWriter().Varint(1, flag));
    return WireWriter().Bytes(1, "m").Bytes(3, "id").Message(4, parameter).text();
  };
  EXPECT_EQ(Encode({.model_name = "m", .id = "id", .finality = Finality::kMoreToCome}), expected(0));
  EXPECT_EQ(Encode({.model_name = "m", .id = "id", .finality = Finality::kLast}), expected(1));
}

TEST(InferResponseEncoder, WritesLongLengths) {
  const std::vector<std::byte> megabyte(1 << 20, std::byte{7});
  const std::vector<OutputTensor> outputs = {{"y", {DataType::kUint8, Shape{1 << 20}, megabyte}}};
  const std::string encoded = Encode({.model_name = "m", .outputs = outputs});
  EXPECT_EQ(encoded, WireWriter()
                         .Bytes(1, "m")
                         .Message(5, WireWriter().Bytes(1, "y").Bytes(2, "UINT8").Packed(3, {1 << 20}))
                         .Bytes(6, std::string(1 << 20, '\7'))
                         .text());
}

}  // namespace
}  // namespace gristmill
