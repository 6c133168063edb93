// SPDX-License-Identifier: Apache-2.0
// The decoder against libprotobuf, an implementation that no one here wrote.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace gristmill {

/// Decodes `bytes` with both and says how they disagree; empty if they do not:
///   - whatever the decoder accepts, libprotobuf parses to the same names, shapes and elements;
///   - what libprotobuf parses, once libprotobuf has written it out again, the decoder does not call damaged.
/// (Before that the decoder may be stricter: it refuses encodings that no writer makes.)
std::string DisagreementWithProtobuf(std::span<const std::byte> bytes);

}  // namespace gristmill
