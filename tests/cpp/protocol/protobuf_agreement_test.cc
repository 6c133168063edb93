// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "inference.pb.h"
#include "protocol/protobuf_oracle.h"

namespace gristmill {
namespace {

using inference::InferParameter;
using inference::ModelInferRequest;
using Random = std::mt19937_64;

uint64_t Draw(Random* random, uint64_t below) { return (*random)() % below; }

InferParameter MakeParameter(Random* random) {
  InferParameter parameter;
  switch (Draw(random, 6)) {
    case 0:
      parameter.set_bool_param(Draw(random, 2) == 1);
      break;
    case 1:
      parameter.set_int64_param(static_cast<int64_t>((*random)() >> Draw(random, 64)));
      break;
    case 2:
      parameter.set_string_param("text");
      break;
    case 3:
      parameter.set_double_param(0.5);
      break;
    case 4:
      parameter.set_uint64_param((*random)() >> Draw(random, 64));
      break;
    default:
      break;
  }
  return parameter;
}

/// `count` elements in the field of a random datatype, whose name is returned.
const char* FillContents(Random* random, int count, inference::InferTensorContents* contents) {
  const int kind = static_cast<int>(Draw(random, 12));
  for (int i = 0; i < count; ++i) {
    const uint64_t bits = (*random)();
    switch (kind) {
      case 0:
        contents->add_bool_contents(bits & 1);
        break;
      case 1:
        contents->add_int_contents(static_cast<int8_t>(bits));
        break;
      case 2:
        contents->add_int_contents(static_cast<int16_t>(bits));
        break;
      case 3:
        contents->add_int_contents(static_cast<int32_t>(bits));
        break;
      case 4:
        contents->add_int64_contents(static_cast<int64_t>(bits));
        break;
      case 5:
        contents->add_uint_contents(static_cast<uint8_t>(bits));
        break;
      case 6:
        contents->add_uint_contents(static_cast<uint16_t>(bits));
        break;
      case 7:
        contents->add_uint_contents(static_cast<uint32_t>(bits));
        break;
      case 8:
        contents->add_uint64_contents(bits);
        break;
      case 9:
        contents->add_fp32_contents(static_cast<float>(bits));
        break;
      case 10:
        contents->add_fp64_contents(static_cast<double>(bits));
        break;
      default:
        contents->add_bytes_contents(std::string(bits % 9, 'b'));
        break;
    }
  }
  constexpr const char* kNames[] = {"BOOL",   "INT8",   "INT16",  "INT32", "INT64", "UINT8",
                                    "UINT16", "UINT32", "UINT64", "FP32",  "FP64",  "BYTES"};
  return kNames[kind];
}

ModelInferRequest MakeRequest(Random* random) {
  ModelInferRequest request;
  request.set_model_name("m\xc3\xa9");
  if (Draw(random, 2) == 0) request.set_model_version("3");
  if (Draw(random, 2) == 0) request.set_id("id");
  const bool raw = Draw(random, 2) == 0;
  for (uint64_t i = Draw(random, 4); i > 0; --i) {
    auto* input = request.add_inputs();
    input->set_name("x" + std::to_string(i));
    const int64_t rows = static_cast<int64_t>(Draw(random, 5)), columns = static_cast<int64_t>(Draw(random, 4));
    input->add_shape(rows);
    input->add_shape(columns);
    if (raw) {
      input->set_datatype("FP16");
      request.add_raw_input_contents(std::string(static_cast<size_t>(rows * columns * 2), 'r'));
    } else {
      input->set_datatype(FillContents(random, static_cast<int>(rows * columns), input->mutable_contents()));
    }
    if (Draw(random, 4) == 0) (*input->mutable_parameters())["p"] = MakeParameter(random);
  }
  for (uint64_t i = Draw(random, 3); i > 0; --i) request.add_outputs()->set_name("y");
  for (const char* name : {"timeout", "sequence_id", "priority"}) {
    if (Draw(random, 4) == 0) (*request.mutable_parameters())[name] = MakeParameter(random);
  }
  return request;
}

/// Flips, cuts, inserts and repeats a few bytes.
void Damage(Random* random, std::string* bytes) {
  for (uint64_t i = Draw(random, 4); i > 0 && !bytes->empty(); --i) {
    const size_t at = Draw(random, bytes->size());
    switch (Draw(random, 4)) {
      case 0:
        (*bytes)[at] = static_cast<char>((*random)());
        break;
      case 1:
        bytes->erase(at, Draw(random, 4));
        break;
      case 2:
        bytes->insert(at, 1 + Draw(random, 3), static_cast<char>((*random)()));
        break;
      default:
        bytes->insert(at, bytes->substr(Draw(random, bytes->size()), Draw(random, 30)));
        break;
    }
  }
}

std::string Hex(const std::string& bytes) {
  std::string hex;
  for (const char byte : bytes) {
    hex += "0123456789abcdef"[static_cast<unsigned char>(byte) >> 4];
    hex += "0123456789abcdef"[byte & 15];
  }
  return hex;
}

TEST(ProtobufAgreement, HoldsForWhatProtobufWrites) {
  Random random(1);
  for (int round = 0; round < 5'000; ++round) {
    const std::string bytes = MakeRequest(&random).SerializeAsString();
    ASSERT_EQ(DisagreementWithProtobuf(std::as_bytes(std::span(bytes))), "") << Hex(bytes);
  }
}

TEST(ProtobufAgreement, HoldsForDamagedRequests) {
  Random random(2);
  for (int round = 0; round < 50'000; ++round) {
    std::string bytes = MakeRequest(&random).SerializeAsString();
    Damage(&random, &bytes);
    ASSERT_EQ(DisagreementWithProtobuf(std::as_bytes(std::span(bytes))), "") << Hex(bytes);
  }
}

TEST(ProtobufAgreement, HoldsForRequestsWrittenTwice) {
  Random random(3);  // protobuf merges two messages that follow each other
  for (int round = 0; round < 5'000; ++round) {
    const std::string bytes = MakeRequest(&random).SerializeAsString() + MakeRequest(&random).SerializeAsString();
    ASSERT_EQ(DisagreementWithProtobuf(std::as_bytes(std::span(bytes))), "") << Hex(bytes);
  }
}

}  // namespace
}  // namespace gristmill
