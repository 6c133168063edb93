// SPDX-License-Identifier: Apache-2.0
#include "engine/version_table.h"

#include <charconv>
#include <utility>

namespace gristmill {
namespace {

/// The number that `text` is, or -1.
int64_t ParseVersion(std::string_view text) {
  int64_t version = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), version);
  return error == std::errc() && end == text.data() + text.size() ? version : -1;
}

std::string Served(const ModelEntry& entry) {
  std::string text = "served are ";
  const char* separator = "";
  for (const auto& [version, servable] : entry.versions) {
    text += std::exchange(separator, ", ") + std::to_string(version);
  }
  for (const auto& [alias, version] : entry.aliases) text += ", '" + alias + "' (" + std::to_string(version) + ")";
  return text;
}

}  // namespace

Status VersionTable::Find(std::string_view model, std::string_view version, std::shared_ptr<Servable>* servable) const {
  const std::shared_ptr<const Entries> entries = Snapshot();
  const auto found = entries->find(model);
  if (found == entries->end()) {
    return NotFound("there is no model '" + std::string(model) + "'; RepositoryIndex lists the models");
  }
  const ModelEntry& entry = found->second;
  if (entry.versions.empty()) {
    return Unavailable("model '" + found->first + "' is not ready" +
                       (entry.reason.empty() ? std::string() : ": " + entry.reason));
  }
  if (version.empty()) {
    *servable = entry.versions.rbegin()->second;
    return Status::Ok();
  }
  const auto alias = entry.aliases.find(version);
  const auto match = entry.versions.find(alias == entry.aliases.end() ? ParseVersion(version) : alias->second);
  if (match == entry.versions.end()) {
    return NotFound("model '" + found->first + "' has no version '" + std::string(version) + "'; " + Served(entry));
  }
  *servable = match->second;
  return Status::Ok();
}

void VersionTable::Publish(const std::string& model, ModelEntry entry) {
  std::shared_ptr<const Entries> old;  // freed after the lock
  MutexLock lock(mu_);
  auto entries = std::make_shared<Entries>(*entries_);
  (*entries)[model] = std::move(entry);
  old = std::exchange(entries_, std::move(entries));
}

void VersionTable::Forget(const std::string& model) {
  std::shared_ptr<const Entries> old;
  MutexLock lock(mu_);
  auto entries = std::make_shared<Entries>(*entries_);
  entries->erase(model);
  old = std::exchange(entries_, std::move(entries));
}

std::shared_ptr<const VersionTable::Entries> VersionTable::Snapshot() const {
  MutexLock lock(mu_);
  return entries_;
}

}  // namespace gristmill
