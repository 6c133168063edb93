// SPDX-License-Identifier: Apache-2.0
#include "engine/completion_queue.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <thread>

namespace gristmill {
namespace {

class CompletionQueueTest : public testing::Test {
 protected:
  BufferPool buffers_{BufferPoolOptions{}};
  CompletionQueue queue_{&buffers_};
  std::vector<Completion> completions_;

  void SetUp() override { ASSERT_TRUE(queue_.Open().ok()); }

  void Complete(uint64_t ticket) {
    auto request = std::make_unique<InferRequest>();
    request->ticket = ticket;
    const InferResponse response{.model_name = "m", .model_version = "1"};
    queue_.Complete(std::move(request), Status::Ok(), &response);
  }

  bool Readable(int timeout_ms = 0) {
    pollfd fd{.fd = queue_.fd(), .events = POLLIN, .revents = 0};
    return poll(&fd, 1, timeout_ms) == 1;
  }
};

TEST_F(CompletionQueueTest, SignalsOncePerFlush) {
  EXPECT_FALSE(Readable());
  Complete(1);
  Complete(2);
  EXPECT_FALSE(Readable());
  queue_.Flush();
  EXPECT_TRUE(Readable());
  queue_.Clear();
  queue_.Drain(&completions_);
  ASSERT_EQ(completions_.size(), 2u);
  EXPECT_EQ(completions_[0].request->ticket, 1u);
  EXPECT_GT(completions_[1].request->encoded_response.size(), 0u);
  EXPECT_FALSE(Readable());
}

TEST_F(CompletionQueueTest, SignalsNobodyWhoIsGoingToDrain) {
  queue_.Attend();
  Complete(1);
  queue_.Flush();
  EXPECT_FALSE(Readable());
  queue_.Drain(&completions_);
  EXPECT_EQ(completions_.size(), 1u);
  Complete(2);
  queue_.Flush();
  EXPECT_TRUE(Readable());
}

TEST_F(CompletionQueueTest, ASignalThatADrainHasForestalledIsClearedAsAnyOther) {
  Complete(1);
  queue_.Flush();
  queue_.Attend();
  queue_.Drain(&completions_);
  EXPECT_EQ(completions_.size(), 1u);
  ASSERT_TRUE(Readable());
  queue_.Clear();
  EXPECT_FALSE(Readable());
  queue_.Drain(&completions_);
  EXPECT_TRUE(completions_.empty());
  Complete(2);
  queue_.Flush();
  EXPECT_TRUE(Readable());
}

TEST_F(CompletionQueueTest, CarriesErrorsWithoutABody) {
  queue_.Complete(std::make_unique<InferRequest>(), Internal("broken"), nullptr);
  queue_.Flush();
  queue_.Drain(&completions_);
  ASSERT_EQ(completions_.size(), 1u);
  EXPECT_EQ(completions_[0].status.message(), "broken");
  EXPECT_EQ(completions_[0].request->encoded_response.size(), 0u);
}

TEST_F(CompletionQueueTest, RefusesAnswersThatItHasNoMemoryFor) {
  BufferPool small({.max_in_use_bytes = 256});
  CompletionQueue queue(&small);
  const InferResponse response{.model_name = "m", .model_version = "1"};
  for (int i = 0; i < 2; ++i) queue.Complete(std::make_unique<InferRequest>(), Status::Ok(), &response);
  queue.Drain(&completions_);
  ASSERT_EQ(completions_.size(), 2u);
  EXPECT_TRUE(completions_[0].status.ok());
  EXPECT_EQ(completions_[1].status.code(), StatusCode::kResourceExhausted);
  completions_.clear();  // before the pool
}

TEST_F(CompletionQueueTest, LosesNothingBetweenThreads) {
  constexpr uint64_t kPerThread = 2000;
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 2; ++t) {
    threads.emplace_back([this, t] {
      for (uint64_t i = 0; i < kPerThread; ++i) {
        Complete(t * kPerThread + i);
        queue_.Flush();
      }
    });
  }
  std::vector<bool> seen(2 * kPerThread);
  size_t count = 0;
  for (int round = 0; count < seen.size(); ++round) {
    if (round % 2 == 0) {
      queue_.Attend();
    } else {
      ASSERT_TRUE(Readable(-1));
      queue_.Clear();
    }
    queue_.Drain(&completions_);
    for (const Completion& completion : completions_) {
      ASSERT_FALSE(seen[completion.request->ticket]);
      seen[completion.request->ticket] = true;
      ++count;
    }
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace gristmill
