// SPDX-License-Identifier: Apache-2.0
// Reading a backend's or a model's Parameters. An absent parameter leaves `value` alone; a bad one is kInvalidArgument
// that says what would be good.
#pragma once

#include <charconv>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

#include "core/model_config.h"
#include "core/status.h"

namespace gristmill {

/// Refuses names that are not among `known`. `owner` is whose parameters they are, "backend 'sim'" say.
inline Status CheckParameterNames(const std::string& owner, const Parameters& parameters,
                                  std::initializer_list<std::string_view> known) {
  for (const auto& parameter : parameters) {
    bool found = false;
    std::string list;
    for (std::string_view name : known) {
      found = found || name == parameter.first;
      list += (list.empty() ? "" : ", ") + std::string(name);
    }
    if (!found) {
      return InvalidArgument(owner + ": unknown parameter '" + parameter.first +
                             "'; known are: " + (list.empty() ? "none" : list));
    }
  }
  return Status::Ok();
}

/// A decimal number from `min` to `max`.
inline Status ReadInt(const Parameters& parameters, const std::string& name, int min, int max, int* value) {
  const auto found = parameters.find(name);
  if (found == parameters.end()) return Status::Ok();
  const std::string& text = found->second;
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < min || number > max) {
    return InvalidArgument("parameter '" + name + "': expected a number from " + std::to_string(min) + " to " +
                           std::to_string(max) + ", got '" + text + "'");
  }
  *value = number;
  return Status::Ok();
}

/// One of a few words.
template <typename Value>
Status ReadChoice(const Parameters& parameters, const std::string& name,
                  std::initializer_list<std::pair<std::string_view, Value>> choices, Value* value) {
  const auto found = parameters.find(name);
  if (found == parameters.end()) return Status::Ok();
  std::string list;
  for (const auto& [word, meaning] : choices) {
    if (word == found->second) {
      *value = meaning;
      return Status::Ok();
    }
    list += (list.empty() ? "" : ", ") + std::string(word);
  }
  return InvalidArgument("parameter '" + name + "': expected one of " + list + "; got '" + found->second + "'");
}

}  // namespace gristmill
