"""Recording of an extension's function or network: what it does with tensors, and nothing else.

    nothing that Python does between calls is left   no memory, no file, no clock
    a branch on a value of a tensor                  refused: there is no such record
    an operation in place, by chance, not torch's    refused; in a network, in place on what is
                                                     its own, once the record is written without
    a buffer or an image that a pass changes         refused
    weights of a network                             copied, so that nobody else holds them
    memory that nobody wrote (torch.empty), a file   refused: it may hold what others left there
    a gradient that the record does not have         refused (a backward pass of its own)

So what is promised of a patient's loss or features holds for the record by what it is made of, not
by trials.
"""

from __future__ import annotations

import logging
import operator
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx, nn

from common.extensions.global_state import drawing_from
from common.platform.errors import ExtensionRefused

if TYPE_CHECKING:
    from torch.export import ExportedProgram

#: (item's tensors) -> one tensor.
Recorded = Callable[..., Tensor]
#: Beginnings of the names of operations whose answer is not made of what they are given.
_UNWRITTEN = ("empty", "new_empty", "efficientzerotensor", "from_file", "resize")
#: Operations with what they are called as methods of tensors.
_METHODS = {"sym_size": "size", "unsafe_view": "reshape"}
#: How torch names what a network holds, inside `_CalledNetwork`.
_PREFIX = "network."
_LOGGERS = ("torch.fx.experimental.symbolic_shapes", "torch._export", "torch.export")


class _Called(nn.Module):
    def __init__(self, function: Recorded) -> None:
        super().__init__()
        self._function = function

    def forward(self, *given: Tensor) -> Tensor:
        return self._function(*given)


def recorded(name: str, function: Recorded, given: tuple[Tensor, ...]) -> Recorded:
    """Return what a function does with tensors of these shapes; ExtensionRefused if it cannot be.

    It is called here, with tensors that hold no value, and never again.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad(), _quiet():
            program = torch.export.export(_Called(function), given, strict=False)
    except Exception as error:
        raise _not_recorded(name, error) from error
    _check_operations(name, program)
    found: Recorded = program.module(check_guards=False)
    return found


def recorded_network(name: str, network: nn.Module, images: Tensor) -> nn.Module:
    """Return what a network does with any number of images; ExtensionRefused if it cannot be.

    The record holds copies of the weights as buffers, and nothing of the network's own.
    """
    any_number = ({0: torch.export.Dim("items")},)
    try:
        with drawing_from(0, ()), torch.no_grad(), _quiet():
            program = torch.export.export(
                _CalledNetwork(network), (images,), dynamic_shapes=any_number, strict=False
            ).run_decompositions({})  # none but those that leave nothing in place
    except Exception as error:
        raise _not_recorded(name, error) from error
    for output in program.graph_signature.output_specs:
        if output.kind.name != "USER_OUTPUT":
            what = str(output.target).removeprefix(_PREFIX)
            message = f"{name} changes {what} with what it sees. Tell its author."
            raise ExtensionRefused(message)
    _check_operations(name, program)
    return _written_out(name, program)


class _CalledNetwork(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        found: object = self.network(image)
        if not isinstance(found, Tensor):
            message = f"it gives {type(found).__name__}, expected one tensor"
            raise TypeError(message)
        return found


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
        else:
            made[node] = _copied(graph, node, made)
    return fx.GraphModule(root, graph)


def _copied(graph: fx.Graph, node: fx.Node, made: Mapping[fx.Node, fx.Node]) -> fx.Node:
    """Return an operation of a record in another graph, so that a TorchScript trace follows it.

    A trace takes how many images there are for a constant where an operation of torch.ops is
    given it, and follows it through the same operation as a method of tensors.
    """
    args, kwargs = fx.map_arg((node.args, node.kwargs), made.__getitem__)
    name = _name_of(node)
    if node.target is torch.ops.aten.fill.Tensor:  # of x[...] = 0; TorchScript has none
        image, value = args
        return graph.call_method("expand_as", (graph.call_method("type_as", (value, image)), image))
    if name is not None and hasattr(Tensor, name):
        return graph.call_method(name, args, kwargs)
    if name is not None and hasattr(torch, name):  # that makes a tensor of a size
        return graph.call_function(getattr(torch, name), args, kwargs)
    copied = graph.node_copy(node, made.__getitem__)
    copied.meta = {}
    return copied


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
    for node in program.graph.nodes:
        if node.op == "call_function" and (fault := _fault(node)) is not None:
            message = f"{name} {fault}. Tell its author."
            raise ExtensionRefused(message)


def _named(target: torch._ops.OpOverload) -> str:
    return str(target).removeprefix("aten.").lstrip("_")


def _fault(node: fx.Node) -> str | None:
    """Return why an operation has no place in a record, or None."""
    target = node.target
    # detach_ changes no value; torch.tensor makes its constants by it.
    if target in {operator.getitem, torch.ops.aten.detach_.default} or _is_of_sizes(node):
        return None
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":  # noqa: SLF001 - torch has no public name for it
        return f"uses {target}, which is none of torch's own operations on tensors"
    if target._schema.is_mutable:  # noqa: SLF001 - likewise
        return f"changes a tensor in place ({target})"
    if _named(target).startswith(_UNWRITTEN):
        return f"takes memory or a file as it finds it ({target}); it may hold other patients"
    if torch.Tag.nondeterministic_seeded in target.tags and not _never_drops(node, target):
        return f"draws by chance ({target})"
    return None


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


def _never_drops(node: fx.Node, target: torch._ops.OpOverload) -> bool:
    """Return whether an operation that may drop parts by chance, as attention may, drops none."""
    names = [argument.name for argument in target._schema.arguments]  # noqa: SLF001 - likewise
    if "dropout_p" not in names:
        return False
    place = names.index("dropout_p")
    given = node.args[place] if place < len(node.args) else node.kwargs.get("dropout_p", 0.0)
    return isinstance(given, float) and given == 0.0


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
