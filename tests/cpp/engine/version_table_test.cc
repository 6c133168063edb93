// SPDX-License-Identifier: Apache-2.0
#include "engine/version_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "batching/adaptive_batch_policy.h"
#include "core/fake_clock.h"
#include "engine/batched_servable.h"
#include "engine/fakes.h"

namespace gristmill {
namespace {

using testing::HasSubstr;

class VersionTableTest : public testing::Test {
 protected:
  FakeClock clock_;
  AdaptiveBatchPolicy policy_;
  VersionTable table_;

  std::shared_ptr<Servable> Version(int64_t version) {
    ModelConfig config = FakeModel::Config();
    config.version = version;
    std::shared_ptr<Servable> servable;
    EXPECT_TRUE(BatchedServable::Create({.config = config, .clock = &clock_, .policy = &policy_},
                                        std::make_shared<FakeModel>(&clock_), &servable)
                    .ok());
    return servable;
  }

  ModelEntry Entry(std::initializer_list<int64_t> versions) {
    ModelEntry entry;
    for (int64_t version : versions) entry.versions[version] = Version(version);
    return entry;
  }

  int64_t Found(std::string_view version) {
    std::shared_ptr<Servable> servable;
    const Status status = table_.Find("m", version, &servable);
    return status.ok() ? servable->config().version : -static_cast<int64_t>(status.code());
  }
};

TEST_F(VersionTableTest, FindsByNumberAliasAndNewest) {
  ModelEntry entry = Entry({2, 10});
  entry.aliases["champion"] = 2;
  table_.Publish("m", std::move(entry));
  EXPECT_EQ(Found(""), 10);
  EXPECT_EQ(Found("2"), 2);
  EXPECT_EQ(Found("champion"), 2);
  for (const char* unknown : {"3", "02x", "-2", "challenger", " 2", "99999999999999999999"}) {
    EXPECT_EQ(Found(unknown), -5) << unknown;
  }
  std::shared_ptr<Servable> servable;
  EXPECT_THAT(table_.Find("m", "7", &servable).message(), HasSubstr("served are 2, 10, 'champion' (2)"));
}

TEST_F(VersionTableTest, TellsUnknownFromNotReady) {
  EXPECT_EQ(Found(""), -5);
  ModelEntry entry;
  entry.reason = "the file is damaged";
  table_.Publish("m", std::move(entry));
  EXPECT_EQ(Found(""), -14);
  std::shared_ptr<Servable> servable;
  EXPECT_THAT(table_.Find("m", "", &servable).message(), HasSubstr("the file is damaged"));
  table_.Forget("m");
  EXPECT_EQ(Found(""), -5);
}

TEST_F(VersionTableTest, ReadersSeeOneStateOrTheOther) {
  const ModelEntry one = Entry({1});
  const ModelEntry two = Entry({2});
  table_.Publish("m", one);
  std::thread writer([&] {
    for (int i = 0; i < 500; ++i) table_.Publish("m", i % 2 == 0 ? two : one);
  });
  for (int i = 0; i < 2000; ++i) {
    const int64_t version = Found("");
    EXPECT_TRUE(version == 1 || version == 2) << version;
  }
  writer.join();
}

}  // namespace
}  // namespace gristmill
