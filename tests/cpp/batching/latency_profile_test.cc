// SPDX-License-Identifier: Apache-2.0
#include "batching/latency_profile.h"

#include <gtest/gtest.h>

#include <random>

namespace gristmill {
namespace {

TEST(LatencyTable, KnowsNothingWithoutEntries) {
  EXPECT_FALSE(LatencyTable().is_known());
  EXPECT_EQ(LatencyTable().At(5).tail_ns, 0);
}

TEST(LatencyTable, JoinsItsEntriesByStraightLines) {
  const LatencyTable::Entry entries[] = {{2, 10, 20, 40}, {4, 20, 60, 80}};
  const LatencyTable table{.entries = entries};
  EXPECT_EQ(table.At(1).typical_ns, 20);
  EXPECT_EQ(table.At(2).typical_ns, 20);
  EXPECT_EQ(table.At(3).floor_ns, 15);
  EXPECT_EQ(table.At(3).typical_ns, 40);
  EXPECT_EQ(table.At(3).tail_ns, 60);
  EXPECT_EQ(table.At(8).typical_ns, 120);
}

TEST(LatencyProfile, SummarisesTheRunsOfABucket) {
  LatencyProfile profile(8);
  EXPECT_FALSE(profile.table().is_known());
  for (int64_t ns : {100, 104, 101, 103, 102}) profile.Record(1, ns, 0);
  const LatencyTable::Entry one = profile.table().At(1);
  EXPECT_EQ(one.floor_ns, 100);
  EXPECT_EQ(one.typical_ns, 102);
  EXPECT_EQ(one.tail_ns, 103);
}

TEST(LatencyProfile, PromisesNoMoreThanTwiceTheMedian) {
  LatencyProfile profile(8);
  for (int i = 0; i < 100; ++i) profile.Record(1, i % 10 == 0 ? 50'000 : 100, 0);
  EXPECT_EQ(profile.table().At(1).tail_ns, 200);
}

TEST(LatencyProfile, FillsInWhatNoRunHasShown) {
  LatencyProfile profile(16);
  profile.Record(4, 400, 0);
  profile.Record(8, 600, 0);
  const LatencyTable table = profile.table();
  EXPECT_EQ(table.At(6).typical_ns, 500);
  EXPECT_EQ(table.At(16).typical_ns, 1200);
  EXPECT_EQ(table.At(1).typical_ns, 400);
  EXPECT_EQ(table.At(1).floor_ns, 100);  // it could be that fast
}

TEST(LatencyProfile, ForgetsRunsOfLongAgo) {
  LatencyProfile profile(4);
  for (int i = 0; i < 100; ++i) profile.Record(2, 1000, 0);
  for (int i = 0; i < 104; ++i) profile.Record(2, 10, 0);
  EXPECT_EQ(profile.table().At(2).tail_ns, 10);
  EXPECT_EQ(profile.table().At(2).floor_ns, 10);
}

TEST(LatencyProfile, GoesStale) {
  LatencyProfile profile(4);
  EXPECT_FALSE(profile.is_fresh(0));
  profile.Record(1, 50'000'000, 7);
  EXPECT_TRUE(profile.is_fresh(900'000'000));
  EXPECT_FALSE(profile.is_fresh(1'100'000'000));
}

TEST(LatencyProfile, CountsARunLargerThanEveryBucket) {
  LatencyProfile profile(1);
  profile.Record(5, 70, 0);
  EXPECT_EQ(profile.table().At(1).typical_ns, 70);
}

TEST(LatencyProfile, NeverDecreasesWithRowsWhateverItIsShown) {
  std::mt19937_64 random(11);
  for (int round = 0; round < 200; ++round) {
    const auto max_rows = static_cast<int64_t>(random() % 100 + 1);
    LatencyProfile profile(max_rows);
    for (int run = 0; run < 150; ++run) {
      profile.Record(static_cast<int64_t>(random() % static_cast<uint64_t>(max_rows) + 1),
                     static_cast<int64_t>(random() % 10'000 + 1), run);
      LatencyTable::Entry before;
      for (int64_t rows = 1; rows <= max_rows + 3; ++rows) {
        const LatencyTable::Entry at = profile.table().At(rows);
        ASSERT_GE(at.floor_ns, before.floor_ns);
        ASSERT_GE(at.typical_ns, before.typical_ns);
        ASSERT_GE(at.tail_ns, before.tail_ns);
        ASSERT_LE(at.floor_ns, at.typical_ns);
        ASSERT_LE(at.typical_ns, at.tail_ns);
        before = at;
      }
    }
  }
}

}  // namespace
}  // namespace gristmill
