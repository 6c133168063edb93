# SPDX-License-Identifier: Apache-2.0
"""Benchmarks of whole servers; bench/micro has those of parts of the core."""
