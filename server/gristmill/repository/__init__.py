# SPDX-License-Identifier: Apache-2.0
"""The model repository: what is on disk, what of it is to be served, and the changes that lead there."""
