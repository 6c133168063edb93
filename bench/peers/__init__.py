# SPDX-License-Identifier: Apache-2.0
"""Other servers to stand beside."""
