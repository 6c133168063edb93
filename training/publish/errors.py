# SPDX-License-Identifier: Apache-2.0
"""Why a version was not published."""


class PublishError(Exception):
    """The version was not published and nothing of it is visible; the message says what to do."""


class VersionExistsError(PublishError):
    """The asked-for version number is taken."""


class ConfigConflictError(PublishError):
    """The model already has another config.pbtxt."""


class ParityError(PublishError):
    """The exported model does not predict what its framework predicts."""
