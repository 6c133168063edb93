// SPDX-License-Identifier: Apache-2.0
#include "transport/session_memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

namespace gristmill {
namespace {

class SessionMemoryTest : public testing::Test {
 protected:
  SessionMemory memory_;
  nghttp2_mem& functions_ = *memory_.functions();

  void* Malloc(size_t size) { return functions_.malloc(size, functions_.mem_user_data); }
  void* Calloc(size_t count, size_t size) { return functions_.calloc(count, size, functions_.mem_user_data); }
  void* Realloc(void* block, size_t size) { return functions_.realloc(block, size, functions_.mem_user_data); }
  void Free(void* block) { functions_.free(block, functions_.mem_user_data); }
};

TEST_F(SessionMemoryTest, ReusesBlocksOfAboutTheSameSize) {
  void* first = Malloc(100);
  Free(first);
  EXPECT_EQ(Malloc(120), first);
  void* other = Malloc(100);
  EXPECT_NE(other, first);
  Free(other);
  Free(first);
}

TEST_F(SessionMemoryTest, BlocksAreAligned) {
  for (const int size : {0, 1, 63, 64, 65, 1024, 1025, 100'000}) {
    void* block = Malloc(static_cast<size_t>(size));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(block) % alignof(std::max_align_t), 0u) << size;
    Free(block);
  }
  Free(nullptr);
}

TEST_F(SessionMemoryTest, CallocClearsWhatWasUsedAndRefusesWhatCannotBe) {
  void* used = Malloc(256);
  std::memset(used, 0xff, 256);
  Free(used);
  auto* cleared = static_cast<unsigned char*>(Calloc(16, 16));
  EXPECT_EQ(cleared, used);
  for (size_t i = 0; i < 256; ++i) EXPECT_EQ(cleared[i], 0);
  Free(cleared);
  EXPECT_EQ(Calloc(SIZE_MAX / 2, 3), nullptr);
  EXPECT_EQ(Malloc(SIZE_MAX), nullptr);
}

TEST_F(SessionMemoryTest, KeepsContentsWhateverIsDoneWithIt) {
  struct Block {
    unsigned char* data;
    size_t size;
    unsigned char mark;
  };
  std::vector<Block> blocks;
  std::mt19937 random(7);
  for (int step = 0; step < 20'000; ++step) {
    const size_t size = 1 + random() % (step % 7 == 0 ? 5'000 : 300);
    const auto mark = static_cast<unsigned char>(random());
    if (blocks.size() < 50) {
      blocks.push_back({static_cast<unsigned char*>(Malloc(size)), size, mark});
      std::memset(blocks.back().data, mark, size);
      continue;
    }
    Block& block = blocks[random() % blocks.size()];
    const size_t kept = std::min(size, block.size);
    block.data = static_cast<unsigned char*>(Realloc(block.data, size));
    for (size_t i = 0; i < kept; ++i) ASSERT_EQ(block.data[i], block.mark);
    block.size = size;
    block.mark = mark;
    std::memset(block.data, mark, size);
    if (step % 3 == 0) {
      Free(block.data);
      block = blocks.back();
      blocks.pop_back();
    }
  }
  for (const Block& block : blocks) Free(block.data);
}

}  // namespace
}  // namespace gristmill
