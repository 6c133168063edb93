// SPDX-License-Identifier: Apache-2.0
#include "core/latency_table.h"

#include <algorithm>

namespace gristmill {
namespace {

/// What is `part` of the way from `from` to `to`.
int64_t Between(int64_t from, int64_t to, double part) {
  return from + static_cast<int64_t>(static_cast<double>(to - from) * part);
}

}  // namespace

LatencyTable::Entry LatencyTable::At(int64_t rows) const {
  if (entries.empty()) return {.rows = rows};
  const auto above = std::ranges::lower_bound(entries, rows, {}, &Entry::rows);
  if (above == entries.begin() || (above != entries.end() && above->rows == rows)) {
    Entry entry = *above;
    entry.rows = rows;
    return entry;
  }
  const Entry& low = *(above - 1);
  // Beyond the last entry, a line through the origin: each row is taken to cost what one of those measured does.
  const Entry high =
      above != entries.end() ? *above : Entry{2 * low.rows, 2 * low.floor_ns, 2 * low.typical_ns, 2 * low.tail_ns};
  const double part = static_cast<double>(rows - low.rows) / static_cast<double>(high.rows - low.rows);
  return {.rows = rows,
          .floor_ns = Between(low.floor_ns, high.floor_ns, part),
          .typical_ns = Between(low.typical_ns, high.typical_ns, part),
          .tail_ns = Between(low.tail_ns, high.tail_ns, part)};
}

}  // namespace gristmill
