"""Write ONNX models from numpy arrays with `onnx.helper` alone; no training framework."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sealpack.format.files import atomic_write, atomic_writer

_EXTERNAL_BYTES = 1024  # smaller tensors stay in the model file
_PAGE = 4096  # alignment of tensors in the external file, so that engines can map them


class Graph:
    """A graph under construction: `constant` and `op` return names to build on."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def constant(self, name: str, value: Any) -> str:
        """An initializer; a 0-d array stays a scalar."""
        import numpy as np
        from onnx import numpy_helper

        # not ascontiguousarray, which would turn a scalar into a vector of one
        array = np.array(value, order="C")
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def op(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        node = helper.make_node(kind, inputs, [output], name=output, **attributes)
        self.nodes.append(node)
        return output

    def model(
        self,
        name: str,
        inputs: Mapping[str, tuple[str, list[Any]]],
        outputs: Mapping[str, tuple[str, list[Any]]],
        props: Mapping[str, str],
    ) -> Any:
        """A checked ModelProto, opset 20, IR 9; ports are name -> (element type, shape)."""
        import onnx
        from onnx import helper

        def ports(wanted: Mapping[str, tuple[str, list[Any]]]) -> list[Any]:
            return [
                helper.make_tensor_value_info(port, getattr(onnx.TensorProto, kind), shape)
                for port, (kind, shape) in wanted.items()
            ]

        graph = helper.make_graph(self.nodes, name, ports(inputs), ports(outputs), self.initializers)
        opsets = [helper.make_opsetid("", 20)]
        model = helper.make_model(graph, opset_imports=opsets, producer_name="sealpack-demo")
        model.ir_version = 9
        helper.set_model_props(model, dict(props))
        onnx.checker.check_model(model)
        return model


def save(model: Any, out_path: Path, *, external_data: bool = False) -> None:
    """Write `model` to `out_path`, its large tensors to `<out_path>.data` when asked."""
    if external_data:
        _move_out(model, out_path.with_name(out_path.name + ".data"))
    atomic_write(out_path, model.SerializeToString(deterministic=True))


def _move_out(model: Any, data_path: Path) -> None:
    from onnx import TensorProto

    with atomic_writer(data_path) as file:
        for tensor in model.graph.initializer:
            if len(tensor.raw_data) < _EXTERNAL_BYTES:
                continue
            file.write(bytes(-file.tell() % _PAGE))
            place = {"location": data_path.name, "offset": file.tell()}
            place["length"] = file.write(tensor.raw_data)
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))
