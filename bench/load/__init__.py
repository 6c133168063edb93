# SPDX-License-Identifier: Apache-2.0
"""Benchmarks that put load on a real server process."""
