// SPDX-License-Identifier: Apache-2.0
// VersionTable: which versions of which models requests can reach, replaced in one step per model.
//
// Thread-safety: thread-safe. A lookup takes a reference to an immutable snapshot, so a swap never blocks on a reader
// and a reader never sees half a swap. Ownership: shares servables with whoever is using them; never drains them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/mutex.h"
#include "core/status.h"
#include "engine/servable.h"

namespace gristmill {

/// What requests for one model name can reach. With no versions, they are answered kUnavailable with `reason`.
struct ModelEntry {
  std::map<int64_t, std::shared_ptr<Servable>> versions;
  std::map<std::string, int64_t, std::less<>> aliases;
  std::string reason;
};

class VersionTable {
 public:
  /// `version` is empty (the newest), a number, or an alias.
  /// Errors: kNotFound for an unknown model, version or alias; kUnavailable for a model without a version.
  Status Find(std::string_view model, std::string_view version, std::shared_ptr<Servable>* servable) const;

  void Publish(const std::string& model, ModelEntry entry);
  void Forget(const std::string& model);

 private:
  using Entries = std::map<std::string, ModelEntry, std::less<>>;

  std::shared_ptr<const Entries> Snapshot() const;

  mutable Mutex mu_;
  std::shared_ptr<const Entries> entries_ GUARDED_BY(mu_) = std::make_shared<Entries>();
};

}  // namespace gristmill
