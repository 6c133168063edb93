// SPDX-License-Identifier: Apache-2.0
#include "protocol/infer_request_decoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "protocol/wire_writer.h"

namespace gristmill {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

WireWriter Input(std::string_view name, std::string_view datatype, std::initializer_list<int64_t> shape) {
  return WireWriter().Bytes(1, name).Bytes(2, datatype).Packed(3, shape);
}

WireWriter Request() { return WireWriter().Bytes(1, "m"); }

WireWriter Parameter(std::string_view name, const WireWriter& value) {
  return WireWriter().Bytes(1, name).Message(2, value);
}

class DecoderTest : public testing::Test {
 protected:
  BufferPool pool_{BufferPoolOptions{}};
  InferRequest request_;
  std::string bytes_;

  Status Decode(const WireWriter& message) {
    bytes_ = message.text();
    request_.Reset();
    request_.received = ReceivedBytes(std::as_bytes(std::span(bytes_)), nullptr, nullptr);
    return DecodeInferRequest(&request_, &pool_);
  }

  void ExpectRefused(const WireWriter& message, const std::string& words,
                     StatusCode code = StatusCode::kInvalidArgument) {
    const Status status = Decode(message);
    EXPECT_EQ(status.code(), code);
    EXPECT_THAT(status.message(), HasSubstr(words));
  }

  /// Decodes one input with these typed contents.
  Status DecodeTyped(std::string_view datatype, int64_t count, const WireWriter& contents) {
    return Decode(Request().Message(5, Input("x", datatype, {count}).Message(5, contents)));
  }

  template <typename T>
  std::vector<T> Values() const {
    const std::span<const std::byte> data = request_.inputs.at(0).tensor.data;
    std::vector<T> values(data.size() / sizeof(T));
    if (!values.empty()) std::memcpy(values.data(), data.data(), data.size());
    return values;
  }

  bool IsViewOfReceived() const {
    const std::byte* data = request_.inputs.at(0).tensor.data.data();
    const auto received = request_.received.bytes();
    return data >= received.data() && data < received.data() + received.size();
  }
};

TEST_F(DecoderTest, ReadsNamesShapesAndRawContentsWithoutACopy) {
  ASSERT_TRUE(Decode(Request()
                         .Bytes(2, "7")
                         .Bytes(3, "request-1")
                         .Message(5, Input("x", "FP32", {1, 2}))
                         .Message(5, Input("y", "INT8", {3}))
                         .Message(6, WireWriter().Bytes(1, "out"))
                         .Bytes(7, "12345678")
                         .Bytes(7, "abc"))
                  .ok());
  EXPECT_EQ(request_.model_name, "m");
  EXPECT_EQ(request_.model_version, "7");
  EXPECT_EQ(request_.id, "request-1");
  ASSERT_EQ(request_.inputs.size(), 2u);
  EXPECT_EQ(request_.inputs[0].name, "x");
  EXPECT_EQ(request_.inputs[0].tensor.dtype, DataType::kFp32);
  EXPECT_EQ(request_.inputs[0].tensor.shape, (Shape{1, 2}));
  EXPECT_EQ(request_.inputs[1].tensor.data.size(), 3u);
  EXPECT_THAT(request_.requested_outputs, ElementsAre("out"));
  EXPECT_TRUE(IsViewOfReceived());
}

TEST_F(DecoderTest, TakesFieldsInAnyOrderAndSkipsUnknownOnes) {
  ASSERT_TRUE(Decode(WireWriter()
                         .Bytes(7, "abcd")
                         .Varint(99, 5)
                         .Message(5, Input("x", "INT32", {1}).Fixed<uint64_t>(77, 1))
                         .Bytes(1, "first")
                         .Bytes(1, "m"))
                  .ok());
  EXPECT_EQ(request_.model_name, "m");  // the last one counts
  EXPECT_THAT(Values<char>(), ElementsAre('a', 'b', 'c', 'd'));
}

TEST_F(DecoderTest, TakesAnUnpackedShape) {
  ASSERT_TRUE(
      Decode(
          Request().Message(5, WireWriter().Bytes(1, "x").Bytes(2, "UINT8").Varint(3, 2).Varint(3, 1)).Bytes(7, "ab"))
          .ok());
  EXPECT_EQ(request_.inputs[0].tensor.shape, (Shape{2, 1}));
}

TEST_F(DecoderTest, ViewsPackedContentsThatAreRawAlready) {
  ASSERT_TRUE(DecodeTyped("FP32", 2, WireWriter().PackedFixed<float>(6, {1.5f, -2})).ok());
  EXPECT_THAT(Values<float>(), ElementsAre(1.5f, -2));
  EXPECT_TRUE(IsViewOfReceived());
  ASSERT_TRUE(DecodeTyped("FP64", 1, WireWriter().PackedFixed<double>(7, {0.25})).ok());
  EXPECT_THAT(Values<double>(), ElementsAre(0.25));
  EXPECT_TRUE(IsViewOfReceived());
  ASSERT_TRUE(DecodeTyped("BOOL", 3, WireWriter().Packed(1, {1, 0, 1})).ok());
  EXPECT_THAT(Values<uint8_t>(), ElementsAre(1, 0, 1));
  EXPECT_TRUE(IsViewOfReceived());
}

TEST_F(DecoderTest, WritesOutVarints) {
  ASSERT_TRUE(DecodeTyped("INT8", 2, WireWriter().Packed(2, {-128, 127})).ok());
  EXPECT_THAT(Values<int8_t>(), ElementsAre(-128, 127));
  ASSERT_TRUE(DecodeTyped("INT16", 1, WireWriter().Packed(2, {-32768})).ok());
  EXPECT_THAT(Values<int16_t>(), ElementsAre(-32768));
  ASSERT_TRUE(DecodeTyped("INT32", 2, WireWriter().Packed(2, {INT32_MIN, INT32_MAX})).ok());
  EXPECT_THAT(Values<int32_t>(), ElementsAre(INT32_MIN, INT32_MAX));
  ASSERT_TRUE(DecodeTyped("INT64", 2, WireWriter().Packed(3, {INT64_MIN, 5})).ok());
  EXPECT_THAT(Values<int64_t>(), ElementsAre(INT64_MIN, 5));
  ASSERT_TRUE(DecodeTyped("UINT8", 2, WireWriter().Packed(4, {0, 255})).ok());
  EXPECT_THAT(Values<uint8_t>(), ElementsAre(0, 255));
  ASSERT_TRUE(DecodeTyped("UINT16", 1, WireWriter().Packed(4, {65535})).ok());
  EXPECT_THAT(Values<uint16_t>(), ElementsAre(65535));
  ASSERT_TRUE(DecodeTyped("UINT32", 1, WireWriter().Packed(4, {UINT32_MAX})).ok());
  EXPECT_THAT(Values<uint32_t>(), ElementsAre(UINT32_MAX));
  ASSERT_TRUE(DecodeTyped("UINT64", 1, WireWriter().Varint(5, UINT64_MAX)).ok());
  EXPECT_THAT(Values<uint64_t>(), ElementsAre(UINT64_MAX));
}

TEST_F(DecoderTest, TakesUnpackedAndSplitContents) {
  ASSERT_TRUE(DecodeTyped("FP32", 3, WireWriter().Fixed<float>(6, 1).PackedFixed<float>(6, {2, 3})).ok());
  EXPECT_THAT(Values<float>(), ElementsAre(1, 2, 3));
  ASSERT_TRUE(DecodeTyped("BOOL", 3, WireWriter().Varint(1, 1).Varint(1, 0).Varint(1, 300)).ok());
  EXPECT_THAT(Values<uint8_t>(), ElementsAre(1, 0, 1));
  ASSERT_TRUE(DecodeTyped("FP32", 1, WireWriter().Fixed<float>(6, 4)).ok());
  EXPECT_THAT(Values<float>(), ElementsAre(4));
  // Two contents messages merge into one.
  ASSERT_TRUE(Decode(Request().Message(5, Input("x", "INT64", {3})
                                              .Message(5, WireWriter().Packed(3, {1}))
                                              .Message(5, WireWriter().Packed(3, {2, 3}))))
                  .ok());
  EXPECT_THAT(Values<int64_t>(), ElementsAre(1, 2, 3));
}

TEST_F(DecoderTest, SkipsContentsOfAnotherWireTypeAsUnknown) {
  const std::string group("\x33\x35\0\0\0\0\x34", 7);  // field 6 as a group, with a fixed32 within
  ASSERT_TRUE(DecodeTyped("FP32", 1, WireWriter().Varint(6, 9).Raw(group).Fixed<float>(6, 4).Varint(8, 1)).ok());
  EXPECT_THAT(Values<float>(), ElementsAre(4));
  ASSERT_TRUE(DecodeTyped("INT32", 1, WireWriter().Fixed<float>(2, 1).Packed(2, {7}).Fixed<uint64_t>(3, 1)).ok());
  EXPECT_THAT(Values<int32_t>(), ElementsAre(7));
}

TEST_F(DecoderTest, WritesBytesElementsInRawForm) {
  ASSERT_TRUE(DecodeTyped("BYTES", 3, WireWriter().Bytes(8, "ab").Bytes(8, "").Bytes(8, "c")).ok());
  const auto data = request_.inputs[0].tensor.data;
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(data.data()), data.size()),
            std::string("\2\0\0\0ab\0\0\0\0\1\0\0\0c", 15));
}

TEST_F(DecoderTest, TakesTensorsWithoutElements) {
  EXPECT_TRUE(DecodeTyped("FP32", 0, WireWriter()).ok());
  EXPECT_TRUE(Decode(Request().Message(5, Input("x", "FP32", {0}))).ok());
  EXPECT_TRUE(Decode(Request().Message(5, Input("x", "BYTES", {0, 4})).Bytes(7, "")).ok());
  EXPECT_TRUE(Decode(Request()).ok());
}

TEST_F(DecoderTest, RefusesRawContentsThatDoNotFit) {
  ExpectRefused(Request().Message(5, Input("x", "FP32", {1, 2})).Bytes(7, "1234567"),
                "input 'x' of model 'm': FP32[1,2] takes 8 bytes but its raw contents have 7");
  ExpectRefused(Request().Message(5, Input("x", "FP32", {int64_t{1} << 62})).Bytes(7, ""), "too many bytes");
  ExpectRefused(Request().Message(5, Input("x", "BYTES", {2})).Bytes(7, std::string_view("\1\0\0\0a", 5)), "hold 1");
  ExpectRefused(Request().Message(5, Input("x", "BYTES", {1})).Bytes(7, std::string_view("\2\0\0\0a", 5)),
                "end within an element");
  ExpectRefused(Request().Message(5, Input("x", "INT8", {1})).Bytes(7, "a").Bytes(7, "b"),
                "has 1 inputs but 2 raw_input_contents");
  ExpectRefused(Request().Message(5, Input("x", "INT8", {1})), "has neither contents nor raw_input_contents");
  ExpectRefused(Request().Message(5, Input("x", "INT32", {1}).Message(5, WireWriter().Packed(2, {1}))).Bytes(7, "abcd"),
                "both contents and raw_input_contents");
}

TEST_F(DecoderTest, RefusesTypedContentsThatDoNotFit) {
  const auto expect = [&](std::string_view datatype, int64_t count, const WireWriter& contents,
                          const std::string& words) {
    const Status status = DecodeTyped(datatype, count, contents);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(status.message(), HasSubstr(words));
  };
  expect("INT8", 1, WireWriter().Packed(2, {128}), "int_contents has an element that is out of range for INT8");
  expect("UINT16", 1, WireWriter().Packed(4, {65536}), "out of range for UINT16");
  expect("FP32", 2, WireWriter().PackedFixed<float>(6, {1}), "shape [2] has 2 elements but contents has 1");
  expect("FP32", 1, WireWriter().PackedFixed<double>(7, {1}), "FP32 elements belong in fp32_contents but came in fp64");
  expect("FP16", 1, WireWriter().PackedFixed<float>(6, {1}), "FP16 has no typed contents; send it in raw");
  expect("BF16", 1, WireWriter().PackedFixed<float>(6, {1}), "BF16 has no typed contents");
  expect("FP32", 1, WireWriter().Bytes(6, "1234").Fixed<double>(7, 1), "but came in fp64_contents");
  expect("FP32", 1, WireWriter().Bytes(6, "123"), "fp32_contents does not decode");
  expect("INT32", 1, WireWriter().Bytes(2, "\xff"), "int_contents does not decode");
}

TEST_F(DecoderTest, RefusesWhatNamesNoTensor) {
  ExpectRefused(Request().Message(5, Input("x", "FLOAT", {1})).Bytes(7, "1234"), "unknown datatype 'FLOAT'");
  ExpectRefused(Request().Message(5, Input("x", "INT8", {-1})).Bytes(7, "1"), "negative dimension -1");
  ExpectRefused(Request().Message(5, Input("x", "INT8", {1, 1, 1, 1, 1, 1, 1, 1, 1})).Bytes(7, "1"), "at most 8");
  ExpectRefused(Request().Message(5, Input("x", "INT8", {int64_t{1} << 32, int64_t{1} << 32})).Bytes(7, "1"),
                "too many elements");
  ExpectRefused(WireWriter().Message(5, Input("x", "INT8", {1})).Bytes(7, "1"), "no model_name");
}

TEST_F(DecoderTest, NamesTheModelWhereverItsNameStands) {
  ExpectRefused(WireWriter().Message(5, Input("x", "FLOAT", {1})).Bytes(1, "m"), "input 'x' of model 'm'");
  ExpectRefused(WireWriter()
                    .Message(5, Input("x", "FP32", {1}).Message(5, WireWriter().PackedFixed<double>(7, {1})))
                    .Bytes(1, "first")
                    .Bytes(1, "m"),
                "input 'x' of model 'm': FP32 elements belong in");
}

TEST_F(DecoderTest, BoundsTheNumberOfTensors) {
  WireWriter inputs = Request(), outputs = Request();
  for (int i = 0; i <= 65'536; ++i) {
    inputs.Message(5, Input("", "INT8", {0}));
    outputs.Message(6, WireWriter());
  }
  ExpectRefused(inputs, "the request to model 'm' has more than 65536 inputs");
  ExpectRefused(outputs, "the request to model 'm' has more than 65536 requested outputs");
}

TEST_F(DecoderTest, RefusesWhatIsNoMessage) {
  ExpectRefused(WireWriter().Bytes(1, "\xff"), "its model_name does not decode");
  ExpectRefused(Request().Bytes(5, "\x0a"), "its input does not decode");
  ExpectRefused(Request().Bytes(6, "\x0a"), "its output does not decode");
  ExpectRefused(Request().Bytes(4, "\x0a"), "its parameters does not decode");
  ExpectRefused(Request().Message(4, Parameter("mine", WireWriter().Bytes(3, "\xff"))), "its parameters does not");
  ExpectRefused(Request().Raw("\x0a"), "its envelope does not decode");
}

TEST_F(DecoderTest, ReadsParameters) {
  ASSERT_TRUE(Decode(Request().Message(4, Parameter("timeout", WireWriter().Varint(2, 250)))).ok());
  EXPECT_EQ(request_.timeout_us, 250);
  ASSERT_TRUE(Decode(Request().Message(4, Parameter("timeout", WireWriter().Varint(2, INT64_MAX)))).ok());
  EXPECT_EQ(request_.timeout_us, 0);
  ASSERT_TRUE(Decode(Request()
                         .Message(4, Parameter("timeout", WireWriter().Varint(2, 0)))
                         .Message(4, Parameter("sequence_id", WireWriter().Varint(2, 0)))
                         .Message(4, Parameter("mine", WireWriter().Bytes(3, "value"))))
                  .ok());
  EXPECT_EQ(request_.timeout_us, 0);
  ExpectRefused(Request().Message(4, Parameter("timeout", WireWriter().Varint(2, static_cast<uint64_t>(-1)))),
                "'timeout' must be a whole number");
  ExpectRefused(Request().Message(4, Parameter("timeout", WireWriter().Bytes(3, "soon"))), "'timeout' must be a whole");
  ExpectRefused(Request().Message(4, Parameter("timeout", WireWriter().Varint(1, 1))), "'timeout' must be a whole");
  ExpectRefused(Request().Message(4, Parameter("timeout", WireWriter().Fixed<double>(4, 2.5))), "'timeout' must be a");
}

TEST_F(DecoderTest, ReadsWhichSequenceARequestBelongsTo) {
  ASSERT_TRUE(Decode(Request()
                         .Message(4, Parameter("sequence_id", WireWriter().Varint(5, 9)))
                         .Message(4, Parameter("sequence_start", WireWriter().Varint(1, 1))))
                  .ok());
  EXPECT_EQ(request_.sequence.number, 9u);
  EXPECT_TRUE(request_.sequence.is_set());
  EXPECT_TRUE(request_.sequence.start);
  EXPECT_FALSE(request_.sequence.end);
  ASSERT_TRUE(Decode(Request()
                         .Message(4, Parameter("sequence_id", WireWriter().Bytes(3, "call")))
                         .Message(4, Parameter("sequence_start", WireWriter().Varint(1, 0)))
                         .Message(4, Parameter("sequence_end", WireWriter().Varint(1, 1))))
                  .ok());
  EXPECT_EQ(request_.sequence.name, "call");
  EXPECT_TRUE(request_.sequence.is_set());
  EXPECT_FALSE(request_.sequence.start);
  EXPECT_TRUE(request_.sequence.end);
  ASSERT_TRUE(Decode(Request().Message(4, Parameter("sequence_id", WireWriter().Bytes(3, "")))).ok());
  EXPECT_FALSE(request_.sequence.is_set());
  ExpectRefused(Request().Message(4, Parameter("sequence_id", WireWriter().Varint(1, 1))), "'sequence_id' must be a");
  ExpectRefused(Request().Message(4, Parameter("sequence_start", WireWriter().Varint(2, 1))), "must be a boolean");
  ExpectRefused(Request().Message(4, Parameter("sequence_end", WireWriter().Bytes(3, "yes"))), "must be a boolean");
}

TEST_F(DecoderTest, ReadsThePriority) {
  ASSERT_TRUE(Decode(Request().Message(4, Parameter("priority", WireWriter().Varint(5, UINT64_MAX)))).ok());
  EXPECT_EQ(request_.priority, UINT64_MAX);
  ASSERT_TRUE(Decode(Request().Message(4, Parameter("priority", WireWriter().Varint(2, 2)))).ok());
  EXPECT_EQ(request_.priority, 2u);
  ExpectRefused(Request().Message(4, Parameter("priority", WireWriter().Varint(2, static_cast<uint64_t>(-1)))),
                "'priority' must be a whole number");
}

TEST_F(DecoderTest, CountsTheLastOfParametersWithTheSameName) {
  const auto timeout = [](const WireWriter& value) { return Parameter("timeout", value); };
  ASSERT_TRUE(Decode(Request()
                         .Message(4, timeout(WireWriter().Varint(2, 250)))
                         .Message(4, timeout(WireWriter().Bytes(3, "soon")))
                         .Message(4, timeout(WireWriter().Varint(2, 900))))
                  .ok());
  EXPECT_EQ(request_.timeout_us, 900);
  // So does the last field of the value, and only in its own wire type.
  ASSERT_TRUE(Decode(Request().Message(
                         4, timeout(WireWriter().Bytes(3, "soon").Varint(5, 70).Fixed<uint64_t>(2, 1).Varint(9, 1))))
                  .ok());
  EXPECT_EQ(request_.timeout_us, 70);
  ASSERT_TRUE(Decode(Request().Message(4, timeout(WireWriter().Varint(5, UINT64_MAX)))).ok());
  EXPECT_EQ(request_.timeout_us, 0);
  EXPECT_TRUE(Decode(Request()
                         .Message(4, Parameter("sequence_id", WireWriter().Varint(2, 9)))
                         .Message(4, Parameter("sequence_id", WireWriter().Varint(2, 0))))
                  .ok());
  const auto region = [](std::string_view name) {
    return Parameter("shared_memory_region", WireWriter().Bytes(3, name));
  };
  EXPECT_TRUE(
      Decode(Request().Message(5, Input("x", "INT8", {1}).Message(4, region("r")).Message(4, region(""))).Bytes(7, "1"))
          .ok());
}

TEST_F(DecoderTest, NamesWhatIsNotServed) {
  ExpectRefused(
      Request().Message(
          5, Input("x", "INT8", {1}).Message(4, Parameter("shared_memory_region", WireWriter().Bytes(3, "region")))),
      "'shared_memory_region'", StatusCode::kUnimplemented);
  ExpectRefused(Request().Message(
                    6, WireWriter().Bytes(1, "y").Message(2, Parameter("classification", WireWriter().Varint(2, 3)))),
                "'classification'", StatusCode::kUnimplemented);
}

TEST_F(DecoderTest, RefusesEveryTruncation) {
  const std::string whole =
      Request()
          .Message(5, Input("x", "FP32", {1, 2}).Message(4, Parameter("p", WireWriter().Varint(1, 1))))
          .Message(6, WireWriter().Bytes(1, "y"))
          .Bytes(7, "12345678")
          .text();
  ASSERT_TRUE(Decode(WireWriter().Raw(whole)).ok());
  for (size_t length = 0; length < whole.size(); ++length) {
    const Status status = Decode(WireWriter().Raw(std::string_view(whole).substr(0, length)));
    // A cut between two fields can leave a message of an input without elements, never one with this input.
    EXPECT_TRUE(!status.ok() || request_.inputs.empty()) << length;
  }
}

}  // namespace
}  // namespace gristmill
