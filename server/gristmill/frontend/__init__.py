# SPDX-License-Identifier: Apache-2.0
"""What takes requests from the network and hands them to the engine."""
