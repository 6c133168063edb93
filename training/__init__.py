# SPDX-License-Identifier: Apache-2.0
"""Companion scripts that train, evaluate, export and publish the sample models. They never import the server."""
