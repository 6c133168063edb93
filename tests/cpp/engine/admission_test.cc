// SPDX-License-Identifier: Apache-2.0
#include "engine/admission.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gristmill {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

ModelConfig TwoInputs() {
  return {.name = "pair",
          .version = 1,
          .max_batch_size = 4,
          .inputs = {{"ids", DataType::kInt64, {-1}}, {"image", DataType::kFp32, {3, -1}}},
          .outputs = {{"score", DataType::kFp32, {1}}, {"label", DataType::kBytes, {1}}}};
}

std::unique_ptr<InferRequest> Request(Shape ids, Shape image) {
  auto request = std::make_unique<InferRequest>();
  request->inputs = {{"image", {DataType::kFp32, image, {}}}, {"ids", {DataType::kInt64, ids, {}}}};
  return request;
}

class AdmissionTest : public testing::Test {
 protected:
  Admission admission_{TwoInputs()};

  void ExpectRefused(InferRequest* request, const std::string& words) {
    const Status status = admission_.Admit(request);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(status.message(), HasSubstr(words));
  }
};

TEST_F(AdmissionTest, OrdersInputsAndCountsRows) {
  auto request = Request({2, 7}, {2, 3, 5});
  ASSERT_TRUE(admission_.Admit(request.get()).ok());
  EXPECT_EQ(request->rows, 2);
  EXPECT_EQ(request->ordered_inputs[0].dtype, DataType::kInt64);
  EXPECT_EQ(request->ordered_inputs[1].shape, (Shape{2, 3, 5}));
  EXPECT_THAT(request->output_indices, ElementsAre(0, 1));
}

TEST_F(AdmissionTest, SelectsTheRequestedOutputsInTheirOrder) {
  auto request = Request({1, 7}, {1, 3, 5});
  request->requested_outputs = {"label"};
  ASSERT_TRUE(admission_.Admit(request.get()).ok());
  EXPECT_THAT(request->output_indices, ElementsAre(1));
  request->requested_outputs = {"label", "score"};
  ASSERT_TRUE(admission_.Admit(request.get()).ok());
  EXPECT_THAT(request->output_indices, ElementsAre(1, 0));
  request->requested_outputs = {"label", "score", "label"};  // as Triton: each once
  ASSERT_TRUE(admission_.Admit(request.get()).ok());
  EXPECT_THAT(request->output_indices, ElementsAre(1, 0));
}

TEST_F(AdmissionTest, SaysWhatIsWrong) {
  auto unknown = Request({1, 7}, {1, 3, 5});
  unknown->inputs[0].name = "picture";
  ExpectRefused(unknown.get(), "no input 'picture'; its inputs are 'ids', 'image'");

  auto missing = Request({1, 7}, {1, 3, 5});
  missing->inputs.pop_back();
  ExpectRefused(missing.get(), "needs input 'ids' (INT64[-1,-1])");

  auto twice = Request({1, 7}, {1, 3, 5});
  twice->inputs.push_back(twice->inputs[0]);
  ExpectRefused(twice.get(), "input 'image' of model 'pair' is given twice");

  auto dtype = Request({1, 7}, {1, 3, 5});
  dtype->inputs[0].tensor.dtype = DataType::kFp64;
  ExpectRefused(dtype.get(), "expects FP32[-1,3,-1] for input 'image' but got FP64[1,3,5]");

  ExpectRefused(Request({1, 7}, {1, 4, 5}).get(), "expects FP32[-1,3,-1] for input 'image' but got FP32[1,4,5]");
  ExpectRefused(Request({7}, {1, 3, 5}).get(), "expects INT64[-1,-1] for input 'ids' but got INT64[7]");
  ExpectRefused(Request({2, 7}, {1, 3, 5}).get(), "'ids' has 2 rows and 'image' has 1");
  ExpectRefused(Request({5, 7}, {5, 3, 5}).get(), "takes 1 to 4 rows per request but got 5");
  ExpectRefused(Request({0, 7}, {0, 3, 5}).get(), "takes 1 to 4 rows per request but got 0");

  auto output = Request({1, 7}, {1, 3, 5});
  output->requested_outputs = {"logit"};
  ExpectRefused(output.get(), "no output 'logit'; its outputs are 'score', 'label'");
}

TEST_F(AdmissionTest, GroupsByOpenDimensionsOnly) {
  const auto admitted = [&](Shape ids, Shape image) {
    auto request = Request(ids, image);
    EXPECT_TRUE(admission_.Admit(request.get()).ok());
    return request;
  };
  const auto base = admitted({1, 7}, {1, 3, 5});
  const auto more_rows = admitted({4, 7}, {4, 3, 5});
  const auto other_shape = admitted({1, 7}, {1, 3, 6});
  EXPECT_EQ(admission_.GroupKey(*base), admission_.GroupKey(*more_rows));
  EXPECT_TRUE(admission_.Compatible(*base, *more_rows));
  EXPECT_NE(admission_.GroupKey(*base), admission_.GroupKey(*other_shape));
  EXPECT_FALSE(admission_.Compatible(*base, *other_shape));
}

TEST(Admission, TakesShapesAsTheyAreWithoutABatchDimension) {
  ModelConfig config = TwoInputs();
  config.max_batch_size = 0;
  const Admission admission(config);
  auto request = Request({7}, {3, 5});
  ASSERT_TRUE(admission.Admit(request.get()).ok());
  EXPECT_EQ(request->rows, 1);
}

}  // namespace
}  // namespace gristmill
