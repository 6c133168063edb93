// SPDX-License-Identifier: Apache-2.0
#include "engine/scatter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "engine/fakes.h"

namespace gristmill {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class ScatterTest : public testing::Test {
 protected:
  const ModelConfig config_{.name = "m",
                            .version = 1,
                            .max_batch_size = 8,
                            .outputs = {{"y", DataType::kFp32, {2}}, {"text", DataType::kBytes, {1}}}};
  const std::vector<float> y_ = {0, 1, 10, 11, 20, 21};
  const std::string text_ = std::string("\1\0\0\0a\0\0\0\0\2\0\0\0bc", 15);
  const std::vector<size_t> offsets_ = {0, 5, 9, 15};
  BatchResult result_;
  std::vector<OutputTensor> outputs_;
  InferRequest request_;

  void SetUp() override {
    result_.outputs = {{{DataType::kFp32, Shape{3, 2}, AsBytes(y_)}, {}},
                       {{DataType::kBytes, Shape{3, 1}, std::as_bytes(std::span(text_))}, offsets_}};
    request_.output_indices = {0, 1};
  }
};

TEST_F(ScatterTest, GivesEachRequestItsRows) {
  ASSERT_TRUE(CheckSplittable(config_, result_, 3).ok());
  ScatterOutputs(config_, result_, request_, {.first = 1, .count = 2, .batch_rows = 3}, &outputs_);
  ASSERT_EQ(outputs_.size(), 2u);
  EXPECT_EQ(outputs_[0].name, "y");
  EXPECT_EQ(outputs_[0].tensor.shape, (Shape{2, 2}));
  EXPECT_THAT(AsFloats(outputs_[0].tensor.data), ElementsAre(10, 11, 20, 21));
  EXPECT_EQ(outputs_[1].tensor.shape, (Shape{2, 1}));
  std::vector<std::string> elements;
  ForEachBytesElement(outputs_[1].tensor.data, [&](std::span<const std::byte> element) {
    elements.emplace_back(reinterpret_cast<const char*>(element.data()), element.size());
  });
  EXPECT_THAT(elements, ElementsAre("", "bc"));
}

TEST_F(ScatterTest, SplitsByActualShapeWhateverWasDeclared) {
  // config_ declares [-1,2]; the model gave [3].
  result_.outputs[0].tensor.shape = Shape{3};
  result_.outputs[0].tensor.data = AsBytes(y_).first(12);
  ScatterOutputs(config_, result_, request_, {.first = 2, .count = 1, .batch_rows = 3}, &outputs_);
  EXPECT_EQ(outputs_[0].tensor.shape, (Shape{1}));
  EXPECT_THAT(AsFloats(outputs_[0].tensor.data), ElementsAre(10));
}

TEST_F(ScatterTest, GivesTheOnlyRequestEverything) {
  result_.outputs[0].tensor.shape = Shape{2, 3};
  ScatterOutputs(config_, result_, request_, {.first = 0, .count = 3, .batch_rows = 3, .only_request = true},
                 &outputs_);
  EXPECT_EQ(outputs_[0].tensor.shape, (Shape{2, 3}));
  EXPECT_EQ(outputs_[0].tensor.data.size(), 24u);
}

TEST_F(ScatterTest, RefusesToSplitWhatHasNoRows) {
  result_.outputs[0].tensor.shape = Shape{2, 3};
  const Status status = CheckSplittable(config_, result_, 3);
  EXPECT_EQ(status.code(), StatusCode::kInternal);
  EXPECT_THAT(status.message(), HasSubstr("output 'y' of model 'm' has shape [2,3] for a batch of 3 rows"));
}

}  // namespace
}  // namespace gristmill
