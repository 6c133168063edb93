// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace gristmill {

/// Whether `text` is well-formed UTF-8, which protobuf demands of every string field.
bool IsUtf8(std::string_view text);

}  // namespace gristmill
