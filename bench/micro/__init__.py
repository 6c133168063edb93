# SPDX-License-Identifier: Apache-2.0
"""Micro-benches of the compiled core."""
