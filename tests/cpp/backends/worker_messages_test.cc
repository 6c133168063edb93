// SPDX-License-Identifier: Apache-2.0
#include "backends/python/worker_messages.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>

namespace gristmill {
namespace {

class WorkerMessagesTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(SharedArena::Create(&arena_).ok());
    config_ = {.name = "m", .outputs = {{"y", DataType::kInt32, {-1}}, {"t", DataType::kBytes, {-1}}}};
  }

  uint64_t Put(const std::string& data) {
    std::byte* const at = arena_->Allocate(data.size());
    std::memcpy(at, data.data(), data.size());
    return arena_->OffsetOf(at);
  }

  void PutTensor(BodyWriter* body, DataType dtype, Shape shape, const std::string& data) {
    const uint64_t offset = Put(data);
    body->PutTensor({dtype, shape, std::as_bytes(std::span(data))}, offset);
  }

  /// One item with both outputs.
  BodyWriter Answers() {
    BodyWriter body;
    body.Put(uint32_t{0});
    body.PutText("");
    body.Put(uint32_t{1});
    body.Put(uint32_t{0});
    body.PutText("");
    body.Put(uint32_t{2});
    body.Put(uint32_t{1});
    PutTensor(&body, DataType::kBytes, Shape{2}, std::string("\2\0\0\0ab\0\0\0\0", 10));
    body.Put(uint32_t{0});
    PutTensor(&body, DataType::kInt32, Shape{1}, std::string("\5\0\0\0", 4));
    return body;
  }

  Status Read(std::span<const std::byte> body, size_t items = 1) {
    return ReadAnswers(body, *arena_, config_, items, &answers_);
  }

  std::unique_ptr<SharedArena> arena_;
  ModelConfig config_;
  std::vector<ItemAnswer> answers_;
};

TEST_F(WorkerMessagesTest, ReadsAnswersByIndex) {
  ASSERT_TRUE(Read(Answers().body()).ok());
  ASSERT_EQ(answers_.size(), 1u);
  EXPECT_TRUE(answers_[0].status.ok());
  EXPECT_EQ(answers_[0].outputs[0].shape, Shape{1});
  EXPECT_EQ(answers_[0].outputs[0].data[0], std::byte{5});
  EXPECT_EQ(answers_[0].outputs[1].dtype, DataType::kBytes);
  EXPECT_EQ(answers_[0].outputs[1].data.size(), 10u);
}

TEST_F(WorkerMessagesTest, RefusesEveryPartOfAMessageAndAnythingAfterIt) {
  const BodyWriter whole = Answers();
  for (size_t size = 0; size < whole.body().size(); ++size) {
    EXPECT_EQ(Read(whole.body().first(size)).code(), StatusCode::kInternal) << size;
  }
  BodyWriter longer = Answers();
  longer.Put(uint8_t{0});
  EXPECT_FALSE(Read(longer.body()).ok());
  EXPECT_FALSE(Read(whole.body(), 2).ok()) << "another number of answers than of items";
}

TEST_F(WorkerMessagesTest, TellsErrorsOfAllAndOfOne) {
  BodyWriter all;
  all.Put(static_cast<uint32_t>(StatusCode::kInternal));
  all.PutText("broken");
  EXPECT_EQ(Read(all.body()).message(), "broken");

  BodyWriter one;
  one.Put(uint32_t{0});
  one.PutText("");
  one.Put(uint32_t{1});
  one.Put(static_cast<uint32_t>(StatusCode::kInvalidArgument));
  one.PutText("bad");
  one.Put(uint32_t{0});
  ASSERT_TRUE(Read(one.body()).ok());
  EXPECT_EQ(answers_[0].status.message(), "bad");
}

TEST_F(WorkerMessagesTest, AnOutputOfAnotherTypeIsTheItemsError) {
  config_.outputs[0].dtype = DataType::kFp32;
  ASSERT_TRUE(Read(Answers().body()).ok());
  EXPECT_EQ(answers_[0].status.message(), "output 'y' of model 'm' is INT32, its configuration says FP32");
}

TEST_F(WorkerMessagesTest, ATensorMustFitItsShapeAndTheMemory) {
  const std::vector<std::function<void(BodyWriter*)>> wrong = {
      [](BodyWriter* body) {
        body->PutTensor({DataType::kInt32, Shape{2}, {}}, 0);
      },
      [](BodyWriter* body) {
        body->PutTensor({DataType::kInt32, Shape{-1}, {}}, 0);
      },
      [](BodyWriter* body) {
        body->PutTensor({DataType::kInt32, Shape{1L << 40, 1L << 40}, {}}, 0);
      },
      [](BodyWriter* body) {
        body->PutTensor({DataType::kInvalid, Shape{0}, {}}, 0);
      },
      [](BodyWriter* body) {
        body->PutTensor({static_cast<DataType>(99), Shape{0}, {}}, 0);
      },
      [](BodyWriter* body) {
        body->PutTensor({DataType::kInt32, Shape{0}, {}}, SharedArena::kSizeBytes + 1);
      },
      [this](BodyWriter* body) { PutTensor(body, DataType::kBytes, Shape{1}, std::string("\5\0\0\0ab", 6)); },
      [this](BodyWriter* body) { PutTensor(body, DataType::kBytes, Shape{2}, std::string("\1\0\0\0a", 5)); }};
  for (size_t i = 0; i < wrong.size(); ++i) {
    BodyWriter body;
    wrong[i](&body);
    BodyReader reader(body.body(), arena_.get());
    EXPECT_EQ(reader.GetTensor().dtype, DataType::kInvalid) << i;
    EXPECT_FALSE(reader.ok()) << i;
  }
}

TEST_F(WorkerMessagesTest, ReadsCallsAndRefusesEveryPartOfThem) {
  BodyWriter body;
  body.Put(uint64_t{9});
  body.PutText("model");
  body.PutText("3");
  body.PutText("id");
  body.Put(uint64_t{5});
  body.PutText("");
  body.Put(uint8_t{2});
  body.Put(int64_t{1000});
  body.Put(uint64_t{4});
  body.Put(uint32_t{1});
  body.PutText("y");
  body.Put(uint32_t{1});
  body.PutText("x");
  PutTensor(&body, DataType::kInt8, Shape{3}, "abc");
  uint64_t number = 0;
  ModelCall call;
  ASSERT_TRUE(ReadCall(body.body(), *arena_, &number, &call).ok());
  EXPECT_EQ(number, 9u);
  EXPECT_EQ(call.model, "model");
  EXPECT_EQ(call.version, "3");
  EXPECT_EQ(call.sequence.number, 5u);
  EXPECT_TRUE(call.sequence.end);
  EXPECT_EQ(call.timeout_us, 1000);
  EXPECT_EQ(call.outputs, std::vector<std::string>{"y"});
  EXPECT_EQ(call.inputs[0].tensor.shape, Shape{3});
  for (size_t size = 0; size < body.body().size(); ++size) {
    ModelCall part;
    EXPECT_FALSE(ReadCall(body.body().first(size), *arena_, &number, &part).ok()) << size;
  }
}

TEST_F(WorkerMessagesTest, TheMemoryIsLimitedAndBeginsAgain) {
  std::byte* const first = arena_->Allocate(100);
  EXPECT_EQ(arena_->OffsetOf(first), 0u);
  EXPECT_EQ(arena_->OffsetOf(arena_->Allocate(1)), 128u);
  EXPECT_EQ(arena_->Allocate(SharedArena::kSizeBytes), nullptr);
  EXPECT_NE(arena_->Allocate(SharedArena::kSizeBytes - 1024), nullptr);
  EXPECT_EQ(arena_->Allocate(1024), nullptr);
  arena_->Reset();
  EXPECT_EQ(arena_->Allocate(8), first);
  std::span<const std::byte> view;
  EXPECT_TRUE(arena_->View(SharedArena::kSizeBytes, 0, &view));
  EXPECT_FALSE(arena_->View(SharedArena::kSizeBytes, 1, &view));
  EXPECT_FALSE(arena_->View(1, ~uint64_t{0}, &view));
}

}  // namespace
}  // namespace gristmill
