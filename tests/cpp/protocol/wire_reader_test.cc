// SPDX-License-Identifier: Apache-2.0
#include "protocol/wire_reader.h"

#include <gtest/gtest.h>

#include <string>

#include "protocol/utf8.h"
#include "protocol/wire_writer.h"

namespace gristmill {
namespace {

std::span<const std::byte> Span(const std::string& text) { return std::as_bytes(std::span(text)); }

/// Fields read before the end, or -1 if the bytes are no message.
int CountFields(const std::string& text) {
  WireReader reader(Span(text));
  int count = 0;
  while (reader.Next()) ++count;
  return reader.ok() ? count : -1;
}

TEST(WireReader, ReadsEveryWireType) {
  const std::string text =
      WireWriter().Varint(1, UINT64_MAX).Fixed<uint64_t>(2, 7).Bytes(3, "abc").Fixed<uint32_t>(536870911, 9).text();
  WireReader reader(Span(text));
  ASSERT_TRUE(reader.Next());
  EXPECT_TRUE(reader.Is(1, WireType::kVarint));
  EXPECT_EQ(reader.number(), UINT64_MAX);
  ASSERT_TRUE(reader.Next());
  EXPECT_TRUE(reader.Is(2, WireType::kFixed64));
  EXPECT_EQ(reader.bytes().size(), 8u);
  ASSERT_TRUE(reader.Next());
  EXPECT_TRUE(reader.Is(3, WireType::kBytes));
  EXPECT_EQ(reader.bytes().size(), 3u);
  ASSERT_TRUE(reader.Next());
  EXPECT_EQ(reader.field(), 536870911u);
  EXPECT_FALSE(reader.Next());
  EXPECT_TRUE(reader.ok());
}

TEST(WireReader, SkipsGroups) {
  EXPECT_EQ(CountFields(WireWriter().Raw("\x0b").Varint(2, 1).Raw("\x13\x14\x0c").Varint(5, 1).text()), 2);
  EXPECT_EQ(CountFields(std::string("\x0b\x14", 2)), -1);  // ended by another group's end
  EXPECT_EQ(CountFields(std::string("\x0b", 1)), -1);
  EXPECT_EQ(CountFields(std::string("\x0c", 1)), -1);
  EXPECT_EQ(CountFields(std::string(100'000, '\x0b')), -1);  // too deep
}

TEST(WireReader, ShowsNoValueOfAGroup) {
  const std::string text = WireWriter().Raw("\x0b").Varint(2, 1).Bytes(3, "abc").Raw("\x0c").text();
  WireReader reader(Span(text));
  ASSERT_TRUE(reader.Next());
  EXPECT_TRUE(reader.Is(1, WireType::kStartGroup));
  EXPECT_EQ(reader.number(), 0u);
  EXPECT_TRUE(reader.bytes().empty());
}

TEST(WireReader, RefusesDamage) {
  for (const std::string& damaged :
       {std::string("\x08", 1),
        std::string("\x0a\x05"
                    "ab",
                    4),
        std::string("\x09"
                    "1234567",
                    8),
        std::string("\x0d"
                    "123",
                    4),
        std::string("\x00\x01", 2), std::string("\x0e\x01", 2),
        std::string("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11), "\x08" + std::string(11, '\xff')}) {
    EXPECT_EQ(CountFields(damaged), -1);
  }
  EXPECT_EQ(CountFields(""), 0);
  EXPECT_EQ(CountFields(std::string("\x08\x80\x80\x80\x00", 5)), 1);  // longer than need be is still a varint
}

TEST(IsUtf8, AgreesWithTheStandard) {
  for (const char* good :
       {"", "abc", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x8c\xbe", "\xed\x9f\xbf", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_TRUE(IsUtf8(good)) << good;
  }
  for (const char* bad : {"\x80", "\xc3", "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                          "\xf5\x80\x80\x80", "\xe2\x82", "a\xff", "\xf0\x80\x80\xaf"}) {
    EXPECT_FALSE(IsUtf8(bad)) << bad;
  }
}

}  // namespace
}  // namespace gristmill
