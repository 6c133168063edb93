// SPDX-License-Identifier: Apache-2.0
// What the simulated backend is told in its model file: time, faults, counts.
#include <thread>

#include "backend_fixture.h"

namespace gristmill {
namespace {

class SimBackendTest : public BackendTest {
 protected:
  void SetUp() override { Start("sim", {}); }

  BackendModel& OpenText(const std::string& text) { return Open(WriteFile("model.sim", text)); }

  std::string OpenError(const std::string& text) {
    std::unique_ptr<BackendModel> model;
    const Status status = backend_->OpenModel({.path = WriteFile("bad.sim", text), .parameters = {}}, &model);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    return status.message();
  }
};

const std::string kIdentity = "input X FP32 -1 1\noutput Y FP32 -1 1 = identity X\n";

TEST_F(SimBackendTest, TakesTheTimeOfItsProfile) {
  const auto instance = Instance(OpenText(kIdentity + "latency_us 2:100 4:300 8:400\n"), 64);
  const std::vector<std::pair<int, int64_t>> expected_us = {{1, 100}, {2, 100}, {3, 200}, {4, 300},
                                                            {6, 350}, {8, 400}, {16, 600}};
  for (const auto& [rows, us] : expected_us) {
    BatchResult result;
    std::thread executor([&, rows = rows] {
      EXPECT_TRUE(Execute(*instance, {{RampFloats({rows, 1}, 0)}}, &result).ok());
    });
    clock_.AwaitWaiters(1);
    clock_.Advance(us * 1000 - 1);
    clock_.AwaitWaiters(1);  // one nanosecond early it still sleeps
    clock_.Advance(1);
    executor.join();
    EXPECT_EQ(result.execute_end_ns - result.execute_start_ns, us * 1000) << rows << " rows";
  }
}

TEST_F(SimBackendTest, FailsEveryNthExecutionOfAnInstance) {
  BackendModel& model = OpenText(kIdentity + "fail_every 3\n");
  const auto first = Instance(model, 8);
  const auto second = Instance(model, 8);
  BatchResult result;
  for (int execution = 1; execution <= 7; ++execution) {
    const Status status = Execute(*first, {{RampFloats({1, 1}, 0)}}, &result);
    EXPECT_EQ(status.code(), execution % 3 == 0 ? StatusCode::kInternal : StatusCode::kOk) << execution;
  }
  EXPECT_TRUE(Execute(*second, {{RampFloats({1, 1}, 0)}}, &result).ok());
}

TEST_F(SimBackendTest, CanGiveTooManyOrTooFewRows) {
  const std::string text =
      "input X INT64 -1 2\ninput S BYTES -1\n"
      "output MORE INT64 -1 2 = identity X\noutput LESS INT64 -1 = row_sum X\noutput S_OUT BYTES -1 = identity S\n"
      "extra_rows MORE 1\nextra_rows LESS -1\nextra_rows S_OUT 1\n";
  const auto instance = Instance(OpenText(text), 8);
  const auto outputs = Outputs(*instance, {{Ids({2, 2}, {1, 2, 3, 4}), Strings({2}, {"a", "b"})}});
  EXPECT_EQ(outputs, (std::vector{Ids({3, 2}, {1, 2, 3, 4, 0, 0}), Ids({1}, {3}), Strings({3}, {"a", "b", ""})}));
  EXPECT_EQ(outputs[2].row_offsets, (std::vector<size_t>{0, 5, 10, 14}));
}

TEST_F(SimBackendTest, DropsStringsWithTheirRows) {
  const std::string text = "input S BYTES -1 2\noutput T BYTES -1 2 = identity S\nextra_rows T -1\n";
  const auto instance = Instance(OpenText(text), 8);
  EXPECT_EQ(Outputs(*instance, {{Strings({2, 2}, {"a", "bb", "c", "d"})}}), std::vector{Strings({1, 2}, {"a", "bb"})});
}

TEST_F(SimBackendTest, TellsEachRowItsBatchSize) {
  const auto instance = Instance(OpenText("input X FP32 -1 1\noutput N INT64 -1 = batch_rows\n"), 8);
  EXPECT_EQ(Outputs(*instance, {{RampFloats({1, 1}, 0)}, {RampFloats({2, 1}, 0)}}), std::vector{Ids({3}, {3, 3, 3})});
}

TEST_F(SimBackendTest, SumsIntegersModulo) {
  const auto instance = Instance(OpenText("input X INT8 -1 2\noutput S INT8 -1 = row_sum X\n"), 8);
  const Tensor bytes = MakeTensor<int8_t>(DataType::kInt8, {2, 2}, {127, 1, -5, 3});
  EXPECT_EQ(Outputs(*instance, {{bytes}}), std::vector{MakeTensor<int8_t>(DataType::kInt8, {2}, {-128, -2})});
}

TEST_F(SimBackendTest, FindsPoisonOfEveryWritableKind) {
  const std::string text =
      "input X FP32 -1  # a comment\ninput S BYTES -1\noutput Y FP32 -1 = identity X\npoison X -1.5\npoison S evil\n";
  const auto instance = Instance(OpenText(text), 8);
  BatchResult result;
  EXPECT_TRUE(Execute(*instance, {{Floats({1}, {1.5f}), Strings({1}, {"evi"})}}, &result).ok());
  EXPECT_EQ(Execute(*instance, {{Floats({1}, {-1.5f}), Strings({1}, {"ok"})}}, &result).code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(Execute(*instance, {{Floats({1}, {0}), Strings({1}, {"evil"})}}, &result).code(),
            StatusCode::kInvalidArgument);
}

TEST_F(SimBackendTest, CanFailToCreateInstances) {
  BackendModel& model = OpenText(kIdentity + "fail_create_instance\n");
  std::unique_ptr<BackendInstance> instance;
  EXPECT_EQ(model.CreateInstance(ConfigFrom(model.signature(), 8), &instance).code(), StatusCode::kInternal);
}

TEST_F(SimBackendTest, SaysWhichLineIsWrong) {
  EXPECT_TRUE(Contains(OpenError("input X FP33 -1\n"), "line 1: unknown type 'FP33'"));
  EXPECT_TRUE(Contains(OpenError("input X FP32 -2\n"), "line 1: expected a dimension, -1 or more, got '-2'"));
  EXPECT_TRUE(Contains(OpenError("\n# nothing\nspeed 3\n"), "line 3: expected input, output"));
  EXPECT_TRUE(Contains(OpenError("input X FP32 -1\noutput Y FP32 -1 = identity Z\n"), "line 2: no input 'Z'"));
  EXPECT_TRUE(Contains(OpenError("input X FP32 -1\noutput Y INT8 -1 = identity X\n"), "differ in type"));
  EXPECT_TRUE(Contains(OpenError("input X FP16 -1\noutput Y FP16 -1 = row_sum X\n"), "row_sum takes"));
  EXPECT_TRUE(Contains(OpenError("input X FP32 -1\noutput Y FP32 -1\n"), "'= identity <input>'"));
  EXPECT_TRUE(Contains(OpenError(kIdentity + "latency_us 4:10 2:20\n"), "line 3: expected rows:us"));
  EXPECT_TRUE(Contains(OpenError(kIdentity + "latency_us 4\n"), "got '4'"));
  EXPECT_TRUE(Contains(OpenError(kIdentity + "fail_every 0\n"), "fail_every"));
  EXPECT_TRUE(Contains(OpenError(kIdentity + "poison X one\n"), "'one' is no element"));
  EXPECT_TRUE(Contains(OpenError(kIdentity + "extra_rows Z 1\n"), "no output 'Z'"));
  EXPECT_TRUE(Contains(OpenError("input X FP32 -1\n"), "at least one input and one output"));
}

}  // namespace
}  // namespace gristmill
