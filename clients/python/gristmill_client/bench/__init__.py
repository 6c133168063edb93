# SPDX-License-Identifier: Apache-2.0
"""The load generator behind `gristmill bench`: closed loop (so many at once) and open loop (so many a second)."""
