"""Recording of an extension's function or network: what it does with tensors, and nothing else.

    nothing that Python does between calls is left   no memory, no file, no clock
    a branch on a value of a tensor                  refused: there is no such record
    an operation that is not on the list             refused (common/extensions/operations.py); in
                                                     a network, steps in place on what is its own
                                                     are written without
    a buffer or an image that a pass changes         refused
    weights and constants                            copied, so that nobody else holds them
    a device                                         that of what the record is given
    a gradient that the record does not have         refused (a backward pass of its own)

So what is promised of a patient's loss or features holds for the record by what it is made of, not
by trials.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx, nn
from torch.fx.node import Argument

from common.extensions.global_state import drawing_from, left_alone
from common.extensions.operations import fault_of
from common.platform.errors import ExtensionRefused

if TYPE_CHECKING:
    from torch.export import ExportedProgram

#: (item's tensors) -> one tensor.
Recorded = Callable[..., Tensor]
#: Operations with what they are called as methods of tensors.
_METHODS = {"sym_size": "size", "unsafe_view": "reshape"}
#: How torch names what a network holds, inside `_Called`.
_PREFIX = "network."
_LOGGERS = ("torch.fx.experimental.symbolic_shapes", "torch._export", "torch.export")


def recorded(name: str, function: Recorded, given: tuple[Tensor, ...]) -> nn.Module:
    """Return what a function does with tensors of these shapes; ExtensionRefused if it cannot be.

    It is called here, with tensors that hold no value, and never again. The record holds copies of
    its constants as buffers, and nothing that anybody else holds.
    """
    try:
        with left_alone(name), torch.random.fork_rng(devices=[]), torch.enable_grad(), _quiet():
            program = torch.export.export(_Called(function), given, strict=False)
    except ExtensionRefused:
        raise
    except Exception as error:
        raise _not_recorded(name, error) from error
    _check_operations(name, program)
    return _written_out(name, program)


def recorded_network(name: str, network: nn.Module, images: Tensor) -> nn.Module:
    """Return what a network does with any number of images; ExtensionRefused if it cannot be.

    The record holds copies of the weights as buffers, and nothing of the network's own.
    """
    any_number = ({0: torch.export.Dim("items")},)
    try:
        with left_alone(name), drawing_from(0, ()), torch.no_grad(), _quiet():
            program = torch.export.export(
                _CalledNetwork(network), (images,), dynamic_shapes=any_number, strict=False
            ).run_decompositions({})  # none but those that leave nothing in place
    except ExtensionRefused:
        raise
    except Exception as error:
        raise _not_recorded(name, error) from error
    for output in program.graph_signature.output_specs:
        if output.kind.name != "USER_OUTPUT":
            what = str(output.target).removeprefix(_PREFIX)
            message = f"{name} changes {what} with what it sees. Tell its author."
            raise ExtensionRefused(message)
    _check_operations(name, program)
    return _written_out(name, program)


class _Called(nn.Module):
    def __init__(self, called: Callable[..., object]) -> None:
        super().__init__()
        self.network = called

    def forward(self, *given: Tensor) -> Tensor:
        found = self.network(*given)
        if not isinstance(found, Tensor):
            message = f"it gives {type(found).__name__}, expected one tensor"
            raise TypeError(message)
        return found


class _CalledNetwork(_Called):
    # Refusals speak of the image by this name.
    def forward(self, image: Tensor) -> Tensor:  # type: ignore[override]  # one, by its name
        return super().forward(image)


def _written_out(name: str, program: ExportedProgram) -> nn.Module:
    """Return the record as a graph of its own: no notes, no hooks, copies of plain tensors."""
    graph, root = fx.Graph(), nn.Module()
    made: dict[fx.Node, fx.Node] = {}
    for node in program.graph.nodes:
        held = _held(program, node)
        if held is not None:
            place = f"kept_{len(made)}"
            root.register_buffer(place, _copy(name, held))
            made[node] = graph.get_attr(place)
        elif node.op == "output":
            (answer,) = node.args[0]
            graph.output(made[answer])
        elif node.target is not torch.ops.aten._assert_tensor_metadata.default:  # noqa: SLF001 - it names a device
            made[node] = _copied(graph, node, made)
    return fx.GraphModule(root, graph)


def _copied(graph: fx.Graph, node: fx.Node, made: Mapping[fx.Node, fx.Node]) -> fx.Node:
    """Return an operation of a record in another graph, so that a TorchScript trace follows it.

    A trace takes how many images there are for a constant where an operation of torch.ops is
    given it, and follows it through the same operation as a method of tensors.
    """
    args, kwargs = fx.map_arg((node.args, node.kwargs), made.__getitem__)
    args, kwargs = _where_given(graph, node, args, kwargs)
    name = _name_of(node)
    if node.target is torch.ops.aten.fill.Tensor:  # of x[...] = 0; TorchScript has none
        image, value = args
        return graph.call_method("expand_as", (graph.call_method("type_as", (value, image)), image))
    if name is not None and hasattr(Tensor, name):
        return graph.call_method(name, args, kwargs)
    if name is not None and hasattr(torch, name):  # that makes a tensor of a size
        return graph.call_function(getattr(torch, name), args, kwargs)
    copied = graph.node_copy(node, made.__getitem__)
    copied.args, copied.kwargs, copied.meta = args, kwargs, {}
    return copied


def _where_given(
    graph: fx.Graph, node: fx.Node, args: tuple[Argument, ...], kwargs: dict[str, Argument]
) -> tuple[tuple[Argument, ...], dict[str, Argument]]:
    """Return arguments with the device of what the record is given, for that of the recording."""
    schema = getattr(node.target, "_schema", None)
    names = [argument.name for argument in schema.arguments] if schema is not None else []
    if "device" not in names:
        return args, kwargs
    place = names.index("device")
    told = args[place] if place < len(args) else kwargs.get("device")
    if told is None and node.all_input_nodes:  # where its own input is
        return args, kwargs
    given = next(one for one in graph.nodes if one.op == "placeholder")
    here = graph.call_function(getattr, (given, "device"))
    if place < len(args):
        return (*args[:place], here, *args[place + 1 :]), kwargs
    return args, kwargs | {"device": here}


def _name_of(node: fx.Node) -> str | None:
    """Return what an operation on sizes is called outside torch.ops; None for any other."""
    if not isinstance(node.target, torch._ops.OpOverload):  # noqa: SLF001 - as below
        return None
    name = _named(node.target).partition(".")[0]
    if name in _METHODS:
        return _METHODS[name]
    return name if any(_is_size(given) for given in node.all_input_nodes) else None


def _held(program: ExportedProgram, node: fx.Node) -> object:
    """Return the tensor of a network that a node of its record stands for, or None."""
    signature = program.graph_signature
    for places in (
        signature.inputs_to_parameters,
        signature.inputs_to_buffers,
        signature.inputs_to_lifted_tensor_constants,
    ):
        if node.name in places:
            place = places[node.name]
            return program.state_dict.get(place, program.constants.get(place))
    return None


def _copy(name: str, value: object) -> Tensor:
    if type(value) not in {Tensor, nn.Parameter, nn.Buffer} or not isinstance(value, Tensor):
        message = (
            f"{name} holds a {type(value).__qualname__}, expected a torch.Tensor: another kind of "
            "tensor computes as it likes. Tell its author."
        )
        raise ExtensionRefused(message)
    return value.detach().clone()


def _not_recorded(name: str, error: Exception) -> ExtensionRefused:
    said = str(error).strip().partition("\n")[0]
    message = (
        f"{name} cannot be recorded: {type(error).__name__}: {said:.300}. It may use torch's "
        "operations alone, keep nothing of what it sees, and not branch on a tensor's value "
        "(torch.where does both sides)."
    )
    return ExtensionRefused(message)


def _check_operations(name: str, program: ExportedProgram) -> None:
    of_patients: set[fx.Node] = set()
    for node in program.graph.nodes:
        given = node.op == "placeholder" and _held(program, node) is None
        if not _is_size(node) and (given or of_patients.intersection(node.all_input_nodes)):
            of_patients.add(node)
        if node.op != "call_function" or _is_of_sizes(node):
            continue
        if (fault := fault_of(node, of_patients)) is not None:
            message = f"{name} {fault}. Tell its author."
            raise ExtensionRefused(message)


def _named(target: torch._ops.OpOverload) -> str:
    return str(target).removeprefix("aten.").lstrip("_")


def _is_of_sizes(node: fx.Node) -> bool:
    """Return whether an operation reckons with how many images there are, and with no value."""
    # Imported here: it loads sympy, which only a record needs.
    from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

    found = node.meta.get("val")
    return (
        _is_size(node)
        and getattr(node.target, "__module__", None) in {"_operator", "math"}
        and not free_unbacked_symbols(found)
    )


def _is_size(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), int | torch.SymInt)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's own reports of a record, and of one that failed: the refusal says it."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
