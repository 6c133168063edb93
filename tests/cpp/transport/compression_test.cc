// SPDX-License-Identifier: Apache-2.0
#include "transport/compression.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <string>

namespace gristmill {
namespace {

TEST(Compression, ReadsWhatClientsAccept) {
  const EncodingSet some = ParseAcceptEncoding("br, gzip ,identity");
  EXPECT_TRUE(some.Has(Encoding::kGzip));
  EXPECT_FALSE(some.Has(Encoding::kDeflate));
  EXPECT_TRUE(ParseAcceptEncoding("deflate").Has(Encoding::kDeflate));
  for (const char* none : {"", ",", "gzipped", " , ,"}) {
    EXPECT_FALSE(ParseAcceptEncoding(none).Has(Encoding::kGzip)) << none;
    EXPECT_TRUE(ParseAcceptEncoding(none).Has(Encoding::kIdentity)) << none;
  }
}

std::string Compress(Encoding encoding, const std::string& text) {
  z_stream stream{};
  deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, MAX_WBITS + (encoding == Encoding::kGzip ? 16 : 0), 8,
               Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&stream, text.size()) + 32, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

class DecompressTest : public testing::TestWithParam<Encoding> {
 protected:
  BufferPool pool_{{}};
  Buffer message_;

  Status Run(const std::string& compressed, size_t max_bytes = 0) {
    return Decompress(GetParam(), std::as_bytes(std::span(compressed)), max_bytes, &pool_, &message_);
  }
};

TEST_P(DecompressTest, GivesBackWhatTheServerCompressed) {
  for (const size_t size : {size_t{100}, size_t{3'000'000}}) {
    const std::string text(size, 'a');
    const Buffer compressed = gristmill::Compress(GetParam(), std::as_bytes(std::span(text)), &pool_);
    ASSERT_FALSE(compressed.is_null());
    EXPECT_LT(compressed.size(), size / 2);
    ASSERT_TRUE(Decompress(GetParam(), compressed.view(), 0, &pool_, &message_).ok());
    EXPECT_TRUE(std::ranges::equal(message_.view(), std::as_bytes(std::span(text))));
  }
}

TEST_P(DecompressTest, LeavesWhatWouldNotBecomeSmaller) {
  for (const std::string text : {"", "a", "abcdefgh"}) {
    EXPECT_TRUE(gristmill::Compress(GetParam(), std::as_bytes(std::span(text)), &pool_).is_null());
  }
}

TEST_P(DecompressTest, GivesBackWhatWasCompressed) {
  for (size_t size : {size_t{0}, size_t{1}, size_t{5'000}, size_t{3'000'000}}) {
    std::string text(size, 'a');
    for (size_t i = 0; i < size; i += 97) text[i] = static_cast<char>(i);
    ASSERT_TRUE(Run(Compress(GetParam(), text)).ok()) << size;
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(message_.data()), message_.size()), text);
  }
}

TEST_P(DecompressTest, StopsAtTheLimit) {
  const std::string bomb = Compress(GetParam(), std::string(10'000'000, 'a'));
  EXPECT_LT(bomb.size(), 20'000u);
  EXPECT_EQ(Run(bomb, 1'000'000).code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(Run(bomb, 9'999'999).code(), StatusCode::kResourceExhausted);
  EXPECT_TRUE(Run(bomb, 10'000'000).ok());
}

TEST_P(DecompressTest, RefusesDamage) {
  const std::string good = Compress(GetParam(), std::string(1'000, 'a') + "b");
  EXPECT_EQ(Run("").code(), StatusCode::kInternal);
  EXPECT_EQ(Run("no compressed message").code(), StatusCode::kInternal);
  EXPECT_EQ(Run(good + "x").code(), StatusCode::kInternal);
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_EQ(Run(good.substr(0, size)).code(), StatusCode::kInternal) << size;
  }
}

INSTANTIATE_TEST_SUITE_P(Encodings, DecompressTest, testing::Values(Encoding::kDeflate, Encoding::kGzip));

TEST(ParseEncoding, KnowsWhatItAccepts) {
  EXPECT_EQ(ParseEncoding("gzip"), Encoding::kGzip);
  EXPECT_EQ(ParseEncoding("deflate"), Encoding::kDeflate);
  EXPECT_EQ(ParseEncoding("identity"), Encoding::kIdentity);
  EXPECT_FALSE(ParseEncoding("snappy"));
}

}  // namespace
}  // namespace gristmill
