// SPDX-License-Identifier: Apache-2.0
// What only ONNX Runtime has: its library, its parameters, shapes that lie, types that the protocol lacks.
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <iterator>

#include "backend_fixture.h"

namespace gristmill {
namespace {

const Parameters kParameters = {{"library_path", GRISTMILL_ONNXRUNTIME_LIBRARY}};

std::string Path(const std::string& model) { return GRISTMILL_ONNX_MODELS "/" + model + ".onnx"; }

class OrtBackendTest : public BackendTest {
 protected:
  void SetUp() override { Start("onnxruntime", kParameters); }

  Status TryOpen(const std::string& model, const Parameters& parameters) {
    std::unique_ptr<BackendModel> opened;
    return backend_->OpenModel({.path = Path(model), .parameters = parameters}, &opened);
  }
};

Status Create(const Parameters& parameters) {
  FakeClock clock;
  std::unique_ptr<Backend> backend;
  return LoadPlugin("onnxruntime")(kBackendAbiVersion, {.clock = &clock, .parameters = parameters}, &backend);
}

TEST(OrtBackendParametersTest, LibraryPathMustBeOnnxRuntime) {
  const Status missing = Create({});
  EXPECT_EQ(missing.code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(Contains(missing.message(), "'library_path' is missing")) << missing.message();
  const Status nowhere = Create({{"library_path", "/nowhere/libonnxruntime.so"}});
  EXPECT_EQ(nowhere.code(), StatusCode::kUnavailable);
  EXPECT_TRUE(Contains(nowhere.message(), "/nowhere/libonnxruntime.so")) << nowhere.message();
  const Status other = Create({{"library_path", "libm.so.6"}});
  EXPECT_EQ(other.code(), StatusCode::kUnavailable);
  EXPECT_TRUE(Contains(other.message(), "OrtGetApiBase")) << other.message();
}

TEST(OrtBackendParametersTest, SaysWhatAGoodValueIs) {
  Parameters parameters = kParameters;
  parameters["intra_op_threads"] = "0";
  EXPECT_TRUE(Contains(Create(parameters).message(), "'intra_op_threads': expected a number from 1 to 1024, got '0'"));
  parameters["intra_op_threads"] = "2x";
  EXPECT_EQ(Create(parameters).code(), StatusCode::kInvalidArgument);
  parameters["intra_op_threads"] = "2";
  parameters["log_level"] = "loud";
  EXPECT_TRUE(Contains(Create(parameters).message(), "expected one of verbose, info, warning, error, fatal"));
}

TEST_F(OrtBackendTest, VersionIsTheLibrarys) {
  EXPECT_TRUE(Contains(GRISTMILL_ONNXRUNTIME_LIBRARY, backend_->version())) << backend_->version();
}

TEST_F(OrtBackendTest, ModelParameters) {
  EXPECT_TRUE(TryOpen("mlp", {{"graph_optimization_level", "disable"}, {"enable_mem_pattern", "false"}}).ok());
  const Status level = TryOpen("mlp", {{"graph_optimization_level", "99"}});
  EXPECT_EQ(level.code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(Contains(level.message(), "expected one of disable, basic, extended, all; got '99'")) << level.message();
  const Status parallel = TryOpen("mlp", {{"execution_mode", "parallel"}});
  EXPECT_EQ(parallel.code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(Contains(parallel.message(), "inter_op_threads")) << parallel.message();
}

TEST_F(OrtBackendTest, ParallelExecutionWithItsOwnThreads) {
  backend_.reset();
  Parameters parameters = kParameters;
  parameters["inter_op_threads"] = "2";
  Start("onnxruntime", parameters);
  std::unique_ptr<BackendModel> model;
  ASSERT_TRUE(backend_->OpenModel({.path = Path("mlp"), .parameters = {{"execution_mode", "parallel"}}}, &model).ok());
  const auto parallel = Instance(*model, 8);
  const auto sequential = Instance(Open(Path("mlp")), 8);
  EXPECT_EQ(Outputs(*parallel, {{RampFloats({8, 16}, 1)}}), Outputs(*sequential, {{RampFloats({8, 16}, 1)}}));
}

ptrdiff_t ThreadCount() {
  const std::filesystem::directory_iterator tasks("/proc/self/task");
  return std::distance(begin(tasks), end(tasks));
}

TEST_F(OrtBackendTest, AllModelsShareOnePoolOfThreads) {
  backend_.reset();
  const ptrdiff_t without = ThreadCount();
  Parameters parameters = kParameters;
  parameters["intra_op_threads"] = "3";
  Start("onnxruntime", parameters);
  EXPECT_EQ(ThreadCount(), without + 2) << "the calling thread is the third";
  for (const char* name : {"mlp", "dynamic_dims", "two_outputs"}) {
    BackendModel& model = Open(Path(name));
    Instance(model, 8);
    Instance(model, 8);
  }
  EXPECT_EQ(ThreadCount(), without + 2);
}

TEST_F(OrtBackendTest, OutputsHaveTheShapeTheyTurnOutToHave) {
  const auto instance = Instance(Open(Path("lying_shape")), 64);
  const std::vector<Request> requests = {{Floats({2, 3}, {0, 0, 1, 1, 0, 0})}, {Floats({1, 3}, {0, 1, 0})}};
  testing::internal::CaptureStderr();
  EXPECT_EQ(Outputs(*instance, requests), std::vector{Ids({3}, {2, 0, 1})});
  EXPECT_EQ(Outputs(*instance, {requests[1]}), std::vector{Ids({1}, {1})});
  // Such models are common, and every batch of theirs is worth a warning to ONNX Runtime.
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST_F(OrtBackendTest, DataMayDecideAnOutputsShape) {
  const auto instance = Instance(Open(Path("nonzero")), 0);
  EXPECT_EQ(Outputs(*instance, {{Floats({4}, {0, 1, 0, 2})}}), std::vector{Ids({1, 2}, {1, 3})});
  EXPECT_EQ(Outputs(*instance, {{Floats({4}, {0, 1, 3, 2})}}), std::vector{Ids({1, 3}, {1, 2, 3})});
  EXPECT_EQ(Outputs(*instance, {{Floats({4}, {0, 0, 0, 0})}}), std::vector{Ids({1, 0}, {})});
}

TEST_F(OrtBackendTest, DynamicDims) {
  BackendModel& model = Open(Path("dynamic_dims"));
  EXPECT_EQ(model.signature().inputs[0].dims, (std::vector<int64_t>{-1, -1, 2}));
  const auto instance = Instance(model, 8);
  EXPECT_EQ(Outputs(*instance, {{Floats({1, 2, 2}, {1, 2, 3, 4})}}), std::vector{Floats({1, 2}, {4, 6})});
  EXPECT_EQ(Outputs(*instance, {{Floats({1, 1, 2}, {1, 2})}, {Floats({1, 1, 2}, {3, 4})}}),
            std::vector{Floats({2, 2}, {1, 2, 3, 4})});
}

TEST_F(OrtBackendTest, WhatTheProtocolCannotCarryIsNamed) {
  const Status sequence = TryOpen("sequence_output", {});
  EXPECT_EQ(sequence.code(), StatusCode::kUnimplemented);
  EXPECT_TRUE(Contains(sequence.message(), "output 'PARTS' is a sequence")) << sequence.message();
  const Status float8 = TryOpen("float8_output", {});
  EXPECT_EQ(float8.code(), StatusCode::kUnimplemented);
  EXPECT_TRUE(Contains(float8.message(), "output 'SMALL' has ONNX element type")) << float8.message();
}

TEST_F(OrtBackendTest, AWrongShapeIsTheCallersFault) {
  const auto instance = Instance(Open(Path("mlp")), 8);
  BatchResult result;
  const Status status = Execute(*instance, {{RampFloats({1, 15}, 0)}}, &result);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(Contains(status.message(), "INPUT0")) << status.message();
}

TEST_F(OrtBackendTest, StringsThatDoNotFillTheShapeAreRefused) {
  const auto instance = Instance(Open(Path("identity_BYTES")), 8);
  BatchResult result;
  EXPECT_EQ(Execute(*instance, {{Strings({2, 1}, {"one"})}}, &result).code(), StatusCode::kInvalidArgument);
  EXPECT_FALSE(Execute(*instance, {{Strings({1, 1}, {"one", "two"})}}, &result).ok());
  EXPECT_EQ(Outputs(*instance, {{Strings({1, 1}, {"one"})}}), std::vector{Strings({1, 1}, {"one"})});
}

TEST_F(OrtBackendTest, AFailingRunWritesNothingToTheLog) {
  const auto instance = Instance(Open(Path("poisoned")), 8);
  BatchResult result;
  testing::internal::CaptureStderr();
  EXPECT_FALSE(Execute(*instance, {{Ids({1}, {666})}}, &result).ok());
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST_F(OrtBackendTest, ABackendCanBeStartedAgain) {
  for (int round = 0; round < 2; ++round) {
    models_.clear();
    backend_.reset();
    Start("onnxruntime", kParameters);
    const auto instance = Instance(Open(Path("no_batch")), 0);
    EXPECT_EQ(Outputs(*instance, {{RampFloats({3, 2}, round)}}), std::vector{RampFloats({3, 2}, round)});
  }
}

TEST_F(OrtBackendTest, AnswersDoNotDependOnTheBatch) {
  const auto instance = Instance(Open(Path("mlp")), 64);
  std::vector<Request> requests;
  for (int rows = 1; rows <= 5; ++rows) requests.push_back({RampFloats({rows, 16}, rows)});
  const Tensor batched = Outputs(*instance, requests)[0];
  const Tensor single = OutputsOneByOne(*instance, requests)[0];
  ASSERT_EQ(batched.shape, single.shape);
  ASSERT_EQ(batched.shape, (Shape{15, 1}));
  for (size_t at = 0; at < batched.data.size(); at += sizeof(float)) {
    float a = 0;
    float b = 0;
    std::memcpy(&a, &batched.data[at], sizeof(a));
    std::memcpy(&b, &single.data[at], sizeof(b));
    EXPECT_NEAR(a, b, 1e-4f * (1 + std::abs(b)));
  }
}

}  // namespace
}  // namespace gristmill
