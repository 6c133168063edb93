# SPDX-License-Identifier: Apache-2.0
"""Gristmill: a high-performance gRPC inference server with a compiled core."""
