# SPDX-License-Identifier: Apache-2.0
"""`python -m gristmill`."""

from gristmill.cli import main

main()
