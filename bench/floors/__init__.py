# SPDX-License-Identifier: Apache-2.0
"""Floors: the least that an answer can cost, for lack of all that a server must do. They measure; they do not serve."""
