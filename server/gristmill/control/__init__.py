# SPDX-License-Identifier: Apache-2.0
"""Every rpc but ModelInfer: descriptions, statistics, the repository, health and reflection."""
