// SPDX-License-Identifier: Apache-2.0
#include "transport/grpc_headers.h"

#include <gtest/gtest.h>

#include <random>

namespace gristmill {
namespace {

TEST(ParseGrpcTimeout, ReadsEveryUnit) {
  EXPECT_EQ(ParseGrpcTimeout("1H"), 3'600'000'000'000);
  EXPECT_EQ(ParseGrpcTimeout("2M"), 120'000'000'000);
  EXPECT_EQ(ParseGrpcTimeout("3S"), 3'000'000'000);
  EXPECT_EQ(ParseGrpcTimeout("4m"), 4'000'000);
  EXPECT_EQ(ParseGrpcTimeout("5u"), 5'000);
  EXPECT_EQ(ParseGrpcTimeout("99999999n"), 99'999'999);
  EXPECT_EQ(ParseGrpcTimeout("0n"), 0);
  EXPECT_EQ(ParseGrpcTimeout("99999999H"), INT64_MAX);
}

TEST(ParseGrpcTimeout, RefusesWhatIsNone) {
  for (const char* text : {"", "S", "1", "1s", "-1S", "1 S", "999999999S", "1.5S", "S1"}) {
    EXPECT_FALSE(ParseGrpcTimeout(text)) << text;
  }
}

TEST(PercentEncode, KeepsPrintableAsciiButForPercent) {
  EXPECT_EQ(PercentEncode("a b~!"), "a b~!");
  EXPECT_EQ(PercentEncode("100%\n\x7f\xc3\xa9"), "100%25%0A%7F%C3%A9");
}

TEST(PercentEncode, LeavesNoBlankAtEitherEnd) {
  EXPECT_EQ(PercentEncode(" a b "), "%20a b%20");
  EXPECT_EQ(PercentEncode("  "), "%20%20");
  EXPECT_EQ(PercentEncode(" "), "%20");
  EXPECT_EQ(PercentEncode(""), "");
}

TEST(Base64, FollowsTheStandard) {
  EXPECT_EQ(Base64Encode(""), "");
  EXPECT_EQ(Base64Encode("f"), "Zg");
  EXPECT_EQ(Base64Encode("fo"), "Zm8");
  EXPECT_EQ(Base64Encode("foobar"), "Zm9vYmFy");
  EXPECT_EQ(Base64Decode("Zg"), "f");
  EXPECT_EQ(Base64Decode("Zg=="), "f");
  EXPECT_EQ(Base64Decode("Zm8="), "fo");
  for (const char* text : {"Z", "Zm9vY", "Zm 9", "Zg===", "Z-8"}) EXPECT_FALSE(Base64Decode(text)) << text;
}

TEST(Base64, GivesBackAnyBytes) {
  std::mt19937 random(1);
  for (size_t size = 0; size < 100; ++size) {
    std::string bytes;
    for (size_t i = 0; i < size; ++i) bytes += static_cast<char>(random());
    EXPECT_EQ(Base64Decode(Base64Encode(bytes)), bytes);
  }
}

}  // namespace
}  // namespace gristmill
