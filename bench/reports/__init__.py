# SPDX-License-Identifier: Apache-2.0
"""How each bench of bench.load is reported: `table` and `plot` of its results."""
