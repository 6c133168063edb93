// SPDX-License-Identifier: Apache-2.0
#include "core/tensor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace gristmill {
namespace {

using testing::ElementsAre;

TEST(Shape, CountsElements) {
  EXPECT_EQ(Shape().ElementCount(), 1);
  EXPECT_EQ((Shape{2, 3}).ElementCount(), 6);
  EXPECT_EQ((Shape{2, 0, 3}).ElementCount(), 0);
  EXPECT_EQ((Shape{2, -1}).ElementCount(), -1);
  EXPECT_EQ((Shape{int64_t{1} << 32, int64_t{1} << 32}).ElementCount(), -1);
}

TEST(Shape, HoldsNoMoreThanItCan) {
  Shape shape;
  for (size_t i = 0; i < Shape::kMaxRank; ++i) EXPECT_TRUE(shape.PushBack(1));
  EXPECT_FALSE(shape.PushBack(1));
  EXPECT_EQ(shape.rank(), Shape::kMaxRank);
}

TEST(Shape, ComparesAndPrints) {
  EXPECT_EQ((Shape{1, 2}), (Shape{1, 2}));
  EXPECT_FALSE((Shape{1, 2}) == (Shape{1, 2, 1}));
  EXPECT_EQ((Shape{-1, 16}).ToString(), "[-1,16]");
  EXPECT_EQ(Shape().ToString(), "[]");
}

TEST(DataType, NamesAndParsesEveryType) {
  for (int i = 1; i <= static_cast<int>(DataType::kBf16); ++i) {
    const auto type = static_cast<DataType>(i);
    EXPECT_EQ(ParseDataType(DataTypeName(type)), type);
    EXPECT_EQ(ElementSizeBytes(type) == 0, type == DataType::kBytes);
  }
  EXPECT_EQ(ParseDataType("fp32"), DataType::kInvalid);
  EXPECT_EQ(ParseDataType(""), DataType::kInvalid);
  EXPECT_EQ(ParseDataType("INVALID"), DataType::kInvalid);
}

TEST(ForEachBytesElement, WalksElementsAndRefusesWhatRunsOver) {
  const auto walk = [](const std::string& raw, std::vector<std::string>* elements) {
    return ForEachBytesElement(std::as_bytes(std::span(raw)), [&](std::span<const std::byte> element) {
      elements->emplace_back(reinterpret_cast<const char*>(element.data()), element.size());
    });
  };
  std::vector<std::string> elements;
  EXPECT_EQ(walk(std::string("\2\0\0\0ab\0\0\0\0\1\0\0\0c", 15), &elements), 3);
  EXPECT_THAT(elements, ElementsAre("ab", "", "c"));
  for (const std::string& damaged :
       {std::string("\2\0\0", 3), std::string("\2\0\0\0a", 5), std::string("\xff\xff\xff\xff", 4)}) {
    EXPECT_EQ(walk(damaged, &elements), -1);
  }
  EXPECT_EQ(walk("", &elements), 0);
}

}  // namespace
}  // namespace gristmill
