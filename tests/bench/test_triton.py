# SPDX-License-Identifier: Apache-2.0
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from bench.peers import triton


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The installed package, empty."""
    folder = tmp_path / "pytriton"
    folder.mkdir()
    spec = ModuleSpec("pytriton", None, origin=str(folder / "__init__.py"))
    monkeypatch.setattr(triton, "find_spec", lambda _: spec)
    return folder


def put_server(package: Path) -> Path:
    program = package / "tritonserver" / "bin" / "tritonserver"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o644)
    return program


def test_without_the_package_there_is_no_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "find_spec", lambda _: None)
    assert triton.find_triton() is None


def test_a_package_without_a_server_is_none_either(package: Path) -> None:
    assert triton.find_triton() is None


def test_the_server_is_found_in_its_package(package: Path) -> None:
    program = put_server(package)
    assert triton.find_triton() == program


def test_the_command_serves_the_model_with_our_backend(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = put_server(package)
    library, model = tmp_path / "libtriton_mlp.so", tmp_path / "model.onnx"
    library.write_text("library")
    model.write_text("model")
    monkeypatch.setattr(triton, "build", lambda _: library)
    command = triton.triton_command(program, model, tmp_path / "scratch")
    options = dict(zip(command[1:-2:2], command[2:-2:2], strict=True))
    assert program.stat().st_mode & 0o111
    published = Path(options["--model-repository"]) / "mlp"
    assert (published / "1" / "model.onnx").read_text() == "model"
    assert (published / "libonnxruntime.so").resolve().exists()
    assert 'backend: "mlp"' in (published / "config.pbtxt").read_text()
    assert (Path(options["--backend-directory"]) / "mlp" / "libtriton_mlp.so").read_text() == "library"
    assert int(options["--grpc-port"]) > 0
