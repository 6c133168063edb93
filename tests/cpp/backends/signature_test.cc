// SPDX-License-Identifier: Apache-2.0
#include "backends/signature.h"

#include <gtest/gtest.h>

namespace gristmill {
namespace {

const ModelSignature kFile = {
    .inputs = {{"A", DataType::kFp32, {-1, 4}}, {"B", DataType::kBytes, {-1, -1}}},
    .outputs = {{"LABEL", DataType::kInt64, {1}}, {"PROBS", DataType::kFp32, {-1, 3}}, {"ANY", DataType::kFp32, {}}}};

ModelConfig Fitting() {
  ModelConfig config;
  config.name = std::string("m");
  config.max_batch_size = 8;
  config.inputs = {{"A", DataType::kFp32, {4}}, {"B", DataType::kBytes, {2}}};
  config.outputs = {{"LABEL", DataType::kInt64, {}}, {"PROBS", DataType::kFp32, {3}}, {"ANY", DataType::kFp32, {7}}};
  return config;
}

std::string Error(const ModelConfig& config, const ModelSignature& signature = kFile) {
  const Status status = CheckAgainstSignature(config, signature);
  EXPECT_TRUE(status.ok() || status.code() == StatusCode::kInvalidArgument);
  return status.message();
}

TEST(CheckAgainstSignatureTest, AcceptsWhatFits) {
  EXPECT_EQ(Error(Fitting()), "");
  ModelConfig config = Fitting();
  config.outputs.resize(1);
  EXPECT_EQ(Error(config), "") << "outputs may be left out";
  config = Fitting();
  config.max_batch_size = 0;
  config.inputs[0].dims = {-1, 4};
  config.inputs[1].dims = {5, 2};
  config.outputs = {{"PROBS", DataType::kFp32, {-1, -1}}};
  EXPECT_EQ(Error(config), "") << "without a batch dimension, narrower than the file or as it is";
}

TEST(CheckAgainstSignatureTest, NamesTensorExpectedAndActual) {
  ModelConfig config = Fitting();
  config.inputs[0].dtype = DataType::kFp64;
  EXPECT_EQ(Error(config), "model 'm', input 'A': the model file has type FP32, the configuration says FP64");
  config = Fitting();
  config.inputs[0].dims = {5};
  EXPECT_NE(Error(config).find("input 'A': the model file has dims [-1,4], the configuration says [-1,5]"),
            std::string::npos);
  config = Fitting();
  config.inputs[0].name = std::string("C");
  EXPECT_EQ(Error(config), "model 'm', input 'C': the model file has no such input; it has 'A', 'B'");
  config = Fitting();
  config.inputs.pop_back();
  EXPECT_EQ(Error(config),
            "model 'm', input 'B': the model file needs it and the configuration lacks it; configured are 'A'");
  config = Fitting();
  config.inputs[1] = config.inputs[0];
  EXPECT_NE(Error(config).find("input 'A': configured twice"), std::string::npos);
}

TEST(CheckAgainstSignatureTest, AnInputWiderThanTheFileIsRefused) {
  ModelConfig config = Fitting();
  config.inputs[0].dims = {-1};
  EXPECT_NE(Error(config).find("the configuration says [-1,-1]"), std::string::npos);
}

TEST(CheckAgainstSignatureTest, BatchingNeedsABatchDimensionOfAnySize) {
  const ModelSignature fixed = {.inputs = {{"X", DataType::kFp32, {1, 4}}}, .outputs = {{"Y", DataType::kFp32, {1}}}};
  ModelConfig config = Fitting();
  config.inputs = {{"X", DataType::kFp32, {4}}};
  config.outputs = {{"Y", DataType::kFp32, {}}};
  EXPECT_NE(Error(config, fixed).find("set max_batch_size: 0"), std::string::npos);
  config.max_batch_size = 1;
  EXPECT_EQ(Error(config, fixed), "");
}

TEST(CheckAgainstSignatureTest, OutputsAreCheckedToo) {
  ModelConfig config = Fitting();
  config.outputs[1].dims = {4};
  EXPECT_NE(Error(config).find("output 'PROBS': the model file has dims [-1,3]"), std::string::npos);
  config = Fitting();
  config.outputs[1].dtype = DataType::kInt32;
  EXPECT_NE(Error(config).find("output 'PROBS': the model file has type FP32"), std::string::npos);
  config.outputs.clear();
  EXPECT_EQ(Error(config), "model 'm': no output is configured; the model file has 'LABEL', 'PROBS', 'ANY'");
}

}  // namespace
}  // namespace gristmill
