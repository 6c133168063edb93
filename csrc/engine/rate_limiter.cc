// SPDX-License-Identifier: Apache-2.0
#include "engine/rate_limiter.h"

#include <algorithm>
#include <utility>

namespace gristmill {

Status RateLimiter::Member::Join(RateLimiter* limiter, std::vector<ResourceNeed> needs, int64_t weight,
                                 std::function<void()> wake, std::unique_ptr<Member>* member) {
  MutexLock lock(limiter->mu_);
  for (const ResourceNeed& need : needs) {
    const auto total = limiter->totals_.find(need.name);
    if (total != limiter->totals_.end() && need.count > total->second) {
      return InvalidArgument("a run needs " + std::to_string(need.count) + " of resource '" + need.name +
                             "', of which the server has " + std::to_string(total->second));
    }
  }
  for (const ResourceNeed& need : needs) limiter->needs_[need.name].insert(need.count);
  member->reset(new Member(limiter, std::move(needs), weight, std::move(wake)));
  return Status::Ok();
}

RateLimiter::Member::~Member() {
  {
    MutexLock lock(limiter_.mu_);
    if (waits_) limiter_.waiting_.erase(this);
    while (wakes_ > 0) limiter_.wakes_ended_.Wait(limiter_.mu_);
    for (const ResourceNeed& need : needs_) {
      auto& counts = limiter_.needs_[need.name];
      counts.erase(counts.find(need.count));
    }
  }
  limiter_.WakeNext();
}

int64_t RateLimiter::TotalOf(const std::string& resource) const {
  const auto total = totals_.find(resource);
  return total != totals_.end() ? total->second : *needs_.at(resource).rbegin();
}

bool RateLimiter::Fits(const Member& member) const {
  return std::ranges::all_of(member.needs_, [this](const ResourceNeed& need) REQUIRES(mu_) {
    const auto used = used_.find(need.name);
    return (used == used_.end() ? 0 : used->second) + need.count <= TotalOf(need.name);
  });
}

bool RateLimiter::Shares(const Member& a, const Member& b) const {
  return std::ranges::any_of(a.needs_, [&](const ResourceNeed& need) {
    return std::ranges::any_of(b.needs_, [&](const ResourceNeed& other) { return need.name == other.name; });
  });
}

bool RateLimiter::Member::TryAcquire() {
  MutexLock lock(limiter_.mu_);
  limiter_.Wait(this);
  for (const Member* other : limiter_.waiting_) {
    if (other == this) break;
    if (limiter_.Shares(*this, *other)) return false;
  }
  if (!limiter_.Fits(*this)) return false;
  limiter_.waiting_.erase(this);
  waits_ = false;
  limiter_.virtual_time_ = std::max(limiter_.virtual_time_, virtual_time_);
  virtual_time_ += weight_;
  for (const ResourceNeed& need : needs_) limiter_.used_[need.name] += need.count;
  return true;
}

bool RateLimiter::Member::StopWaiting() {
  MutexLock lock(limiter_.mu_);
  if (!waits_) return false;
  limiter_.waiting_.erase(this);
  waits_ = false;
  return true;
}

void RateLimiter::Wait(Member* member) {
  if (std::exchange(member->waits_, true)) return;
  member->virtual_time_ = std::max(member->virtual_time_, virtual_time_);
  waiting_.insert(member);
}

void RateLimiter::Member::Release(bool waits) {
  {
    MutexLock lock(limiter_.mu_);
    if (waits) limiter_.Wait(this);
    for (const ResourceNeed& need : needs_) limiter_.used_[need.name] -= need.count;
  }
  limiter_.WakeNext();
}

void RateLimiter::WakeNext() {
  std::vector<Member*> next;
  {
    MutexLock lock(mu_);
    for (Member* member : waiting_) {
      const bool is_first = std::none_of(waiting_.begin(), waiting_.find(member),
                                         [&](const Member* other) { return Shares(*member, *other); });
      if (!is_first || !Fits(*member)) continue;
      ++member->wakes_;
      next.push_back(member);
    }
  }
  for (Member* member : next) member->wake_();
  if (next.empty()) return;
  MutexLock lock(mu_);
  for (Member* member : next) --member->wakes_;
  wakes_ended_.NotifyAll();
}

}  // namespace gristmill
