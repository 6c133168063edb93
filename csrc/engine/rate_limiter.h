// SPDX-License-Identifier: Apache-2.0
// RateLimiter: which model runs next where models share resources that not all can have at once.
//
// A model that waits gets the resources that are let go of in the order of virtual time, which goes forward by its
// weight with every run (stride scheduling): models that always wait share runs by weight, and one that has been idle
// is not owed anything. Whoever comes first in that order is waited for, so none is starved by others that need less.
// Thread-safety: thread-safe. Locks: its own is taken under a servable's; wake-ups are called with none.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/model_config.h"
#include "core/mutex.h"
#include "core/status.h"

namespace gristmill {

class RateLimiter {
 public:
  /// `totals`: what there is of each resource. Of any other there is as much as the model that needs most of it needs.
  explicit RateLimiter(std::map<std::string, int64_t> totals = {}) : totals_(std::move(totals)) {}

  /// A model with needs. Used by its servable, which outlives it.
  class Member {
   public:
    /// `wake`: a run may begin now. kInvalidArgument if there will never be enough.
    static Status Join(RateLimiter* limiter, std::vector<ResourceNeed> needs, int64_t weight,
                       std::function<void()> wake, std::unique_ptr<Member>* member);
    /// After the last Release. No wake-up is under way any more.
    ~Member();

    /// Takes the resources of one run. False: not now, and `wake` is called when it is worth another try.
    bool TryAcquire();
    /// What TryAcquire waits for is not wanted any more. True: it was, and others may be waiting for that; WakeOthers
    /// then, under no lock.
    bool StopWaiting();
    /// After a run. `waits`: for another, and so has its place among those who wait. Under no lock.
    void Release(bool waits);
    void WakeOthers() { limiter_.WakeNext(); }

   private:
    friend class RateLimiter;
    Member(RateLimiter* limiter, std::vector<ResourceNeed> needs, int64_t weight, std::function<void()> wake)
        : limiter_(*limiter), needs_(std::move(needs)), weight_(weight), wake_(std::move(wake)) {}

    RateLimiter& limiter_;
    const std::vector<ResourceNeed> needs_;
    const int64_t weight_;
    const std::function<void()> wake_;
    // Guarded by the limiter's lock.
    int64_t virtual_time_ = 0;
    bool waits_ = false;
    int wakes_ = 0;  // under way
  };

 private:
  struct BeforeInTime {
    bool operator()(const Member* a, const Member* b) const {
      return a->virtual_time_ != b->virtual_time_ ? a->virtual_time_ < b->virtual_time_ : a < b;
    }
  };

  void Wait(Member* member) REQUIRES(mu_);
  bool Fits(const Member& member) const REQUIRES(mu_);
  bool Shares(const Member& a, const Member& b) const;
  void WakeNext();
  int64_t TotalOf(const std::string& resource) const REQUIRES(mu_);

  const std::map<std::string, int64_t> totals_;
  Mutex mu_;
  CondVar wakes_ended_;
  std::map<std::string, std::multiset<int64_t>> needs_ GUARDED_BY(mu_);  // of all members, by resource
  std::map<std::string, int64_t> used_ GUARDED_BY(mu_);
  std::set<Member*, BeforeInTime> waiting_ GUARDED_BY(mu_);
  int64_t virtual_time_ GUARDED_BY(mu_) = 0;  // of the last run that has begun
};

}  // namespace gristmill
