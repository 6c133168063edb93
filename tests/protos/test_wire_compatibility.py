# SPDX-License-Identifier: Apache-2.0
"""Our protos against the descriptors that tritonclient carries: same names, numbers, types, streams."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from gristmill_protos import POOL, inference_pb2, model_config_pb2
from tritonclient.grpc import model_config_pb2 as their_config
from tritonclient.grpc import service_pb2 as their_service

FILES = [(inference_pb2, their_service), (model_config_pb2, their_config)]


def shape_of(field: FieldDescriptor) -> tuple[object, ...]:
    target = field.message_type or field.enum_type
    oneof = field.containing_oneof.name if field.containing_oneof else None
    return (field.name, field.number, field.type, field.is_repeated, target.full_name if target else None, oneof)


def messages(file: FileDescriptor) -> Iterator[tuple[str, object]]:
    pending = list(file.message_types_by_name.values())
    while pending:
        message: Descriptor = pending.pop()
        pending.extend(message.nested_types)
        yield message.full_name, sorted(shape_of(field) for field in message.fields)
        for enum in message.enum_types:
            yield enum.full_name, {value.name: value.number for value in enum.values}
    for enum in file.enum_types_by_name.values():
        yield enum.full_name, {value.name: value.number for value in enum.values}


@pytest.mark.parametrize(("ours", "theirs"), FILES)
def test_messages_and_enums_are_the_same(ours: object, theirs: object) -> None:
    assert dict(messages(ours.DESCRIPTOR)) == dict(messages(theirs.DESCRIPTOR))  # type: ignore[attr-defined]


def test_the_service_is_the_same() -> None:
    def methods(file: FileDescriptor) -> dict[str, tuple[object, ...]]:
        service = file.services_by_name["GRPCInferenceService"]
        return {
            method.name: (
                method.input_type.full_name,
                method.output_type.full_name,
                method.client_streaming,
                method.server_streaming,
            )
            for method in service.methods
        }

    assert methods(inference_pb2.DESCRIPTOR) == methods(their_service.DESCRIPTOR)
    assert len(methods(inference_pb2.DESCRIPTOR)) == 20


def test_both_live_in_one_process() -> None:
    assert inference_pb2.DESCRIPTOR.pool is POOL
    assert their_service.DESCRIPTOR.pool is not POOL
    request = their_service.ModelInferRequest(model_name="m", raw_input_contents=[b"x"])
    assert inference_pb2.ModelInferRequest.FromString(request.SerializeToString()).model_name == "m"
