// SPDX-License-Identifier: Apache-2.0
#include "transport/message_reader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "transport/grpc_frames.h"

namespace gristmill {
namespace {

class MessageReaderTest : public testing::Test {
 protected:
  BufferPool pool_{{}};
  std::vector<std::string> messages_;

  /// Reads `stream` in pieces of `piece` bytes into messages_.
  Status Read(MessageReader* reader, const std::string& stream, size_t piece) {
    for (size_t at = 0; at < stream.size(); at += piece) {
      std::span<const std::byte> bytes = std::as_bytes(std::span(stream)).subspan(at);
      bytes = bytes.first(std::min(piece, bytes.size()));
      while (!bytes.empty()) {
        bool whole = false;
        if (Status status = reader->Read(&bytes, &whole); !status.ok()) return status;
        if (!whole) continue;
        const Buffer message = reader->TakeMessage();
        messages_.emplace_back(reinterpret_cast<const char*>(message.data()), message.size());
      }
    }
    return Status::Ok();
  }
};

TEST_F(MessageReaderTest, CutsMessagesWhereverTheirBytesAreCut) {
  const std::string large(3'000'000, 'x');
  const std::string stream = GrpcFrame("first") + GrpcFrame("") + GrpcFrame(large) + GrpcFrame("last");
  for (size_t piece : {size_t{7'001}, size_t{65'536}, stream.size()}) {
    MessageReader reader(&pool_, 0);
    messages_.clear();
    ASSERT_TRUE(Read(&reader, stream, piece).ok());
    EXPECT_EQ(messages_, (std::vector<std::string>{"first", "", large, "last"}));
    EXPECT_FALSE(reader.within_message());
  }
  MessageReader reader(&pool_, 0);
  messages_.clear();
  ASSERT_TRUE(Read(&reader, GrpcFrame("first") + GrpcFrame("") + GrpcFrame("last"), 1).ok());
  EXPECT_EQ(messages_, (std::vector<std::string>{"first", "", "last"}));
}

TEST_F(MessageReaderTest, KnowsWhenAMessageIsNotWhole) {
  MessageReader reader(&pool_, 0);
  ASSERT_TRUE(Read(&reader, std::string(1, '\0'), 1).ok());
  EXPECT_TRUE(reader.within_message());
  ASSERT_TRUE(Read(&reader, GrpcFrame("ab").substr(1), 100).ok());
  EXPECT_FALSE(reader.within_message());
}

TEST_F(MessageReaderTest, RefusesWhatItCannotTake) {
  MessageReader limited(&pool_, 10);
  EXPECT_TRUE(Read(&limited, GrpcFrame(std::string(10, 'x')), 100).ok());
  EXPECT_EQ(Read(&limited, GrpcFrame(std::string(11, 'x')), 100).code(), StatusCode::kResourceExhausted);
  MessageReader compressed(&pool_, 0);
  EXPECT_EQ(Read(&compressed, "\1" + GrpcFrame("x").substr(1), 100).code(), StatusCode::kInternal);
  MessageReader damaged(&pool_, 0);
  EXPECT_EQ(Read(&damaged, "\2" + GrpcFrame("x").substr(1), 100).code(), StatusCode::kInternal);
}

TEST_F(MessageReaderTest, TakesMemoryForWhatHasComeAndNotForWhatIsPromised) {
  // 4 GiB - 1, of which one byte comes: with memory for all of it, this would not fit many times over.
  std::vector<std::unique_ptr<MessageReader>> readers;
  for (int i = 0; i < 100; ++i) {
    readers.push_back(std::make_unique<MessageReader>(&pool_, 0));
    ASSERT_TRUE(Read(readers.back().get(), std::string("\0\xff\xff\xff\xffx", 6), 100).ok());
  }
}

}  // namespace
}  // namespace gristmill
