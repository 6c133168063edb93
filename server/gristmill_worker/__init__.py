# SPDX-License-Identifier: Apache-2.0
"""The process in which a model written in Python runs: `python <this directory>`, started by csrc/backends/python.

Needs numpy and nothing of the server, so that it runs in a model's own environment too.
"""
