"""Operations that a record of an extension may hold: a list, and what it asks of some of them.

Whoever adds one looks at what it does in torch: its answer is made of what it is given and of
nothing else, the same each time; it writes nothing, running statistics included (torch's schema
does not tell of these); it reaches no memory but that of the elements it is given (no offsets, no
flag `unsafe`); and no value that a patient has makes it raise, so that no row ends a site's work.

Public: fault_of.
"""

from __future__ import annotations

import operator
from collections.abc import Collection

import torch
from torch import fx
from torch.fx.node import Argument

_ARITHMETIC = """
abs absolute.default neg negative.default sign reciprocal square sqrt rsqrt exp exp2 expm1 log log2
log10 log1p sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh erf erfc sigmoid logit
special_expit special_entr special_xlogy xlogy.Tensor lgamma digamma special_bessel_j0 ceil floor
round trunc frac nan_to_num add.Tensor add.Scalar sub.Tensor sub.Scalar subtract.Tensor rsub.Tensor
rsub.Scalar mul.Tensor mul.Scalar multiply.Tensor div.Tensor div.Scalar divide.Tensor
true_divide.Tensor pow.Tensor_Scalar pow.Tensor_Tensor pow.Scalar atan2 hypot logaddexp logaddexp2
maximum minimum fmax fmin max.other min.other lerp.Scalar lerp.Tensor addcmul addcdiv clamp
clamp.Tensor clamp_min clamp_min.Tensor clamp_max clamp_max.Tensor clip bucketize.Tensor
remainder.Scalar remainder.Tensor fmod.Scalar fmod.Tensor floor_divide floor_divide.Scalar
div.Tensor_mode div.Scalar_mode
"""
_COMPARISONS = """
eq.Tensor eq.Scalar ne.Tensor ne.Scalar gt.Tensor gt.Scalar ge.Tensor ge.Scalar lt.Tensor lt.Scalar
le.Tensor le.Scalar isnan isinf isfinite isclose logical_and logical_or logical_xor logical_not
bitwise_and.Tensor bitwise_or.Tensor bitwise_xor.Tensor bitwise_not __and__.Tensor __or__.Tensor
__xor__.Tensor where.self where.Scalar where.ScalarSelf where.ScalarOther masked_fill.Scalar
masked_fill.Tensor
"""
_OVER_DIMENSIONS = """
sum sum.dim_IntList nansum mean mean.dim nanmean prod prod.dim_int amax amin aminmax max min max.dim
min.dim median median.dim nanmedian argmax argmin argsort sort sort.stable topk kthvalue cumsum
cumprod cummax cummin logcumsumexp logsumexp var var.dim var.correction std std.dim std.correction
var_mean.dim var_mean.correction std_mean.dim std_mean.correction all all.dim any any.dim
count_nonzero norm.Scalar norm.ScalarOpt_dim linalg_vector_norm cosine_similarity
pairwise_distance diff softmax.int log_softmax.int _softmax _log_softmax
"""
_ACTIVATIONS = """
relu relu6 leaky_relu prelu _prelu_kernel elu celu selu gelu silu mish softplus hardtanh hardswish
hardsigmoid hardshrink softshrink threshold glu log_sigmoid log_sigmoid_forward dropout
feature_dropout alpha_dropout
"""
_PRODUCTS = """
linear bilinear matmul mm bmm mv dot outer inner addmm addbmm addmv baddbmm einsum tensordot
conv1d conv2d conv3d conv1d.padding conv2d.padding conv3d.padding convolution conv_transpose1d
conv_transpose2d.input conv_transpose3d.input scaled_dot_product_attention
"""
_NORMS_AND_POOLS = """
layer_norm native_layer_norm group_norm native_group_norm rms_norm batch_norm instance_norm
_native_batch_norm_legit_no_training avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d
max_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d
_adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
upsample_nearest1d.vec upsample_nearest2d.vec upsample_nearest3d.vec upsample_linear1d.vec
upsample_bilinear2d.vec upsample_bicubic2d.vec upsample_trilinear3d.vec
"""
_LOSSES = """
binary_cross_entropy_with_logits cross_entropy_loss kl_div mse_loss l1_loss smooth_l1_loss
huber_loss soft_margin_loss hinge_embedding_loss poisson_nll_loss
"""
#: `_unsafe_view` is reshape, of a result that nothing else holds.
_SHAPES = """
view reshape _unsafe_view flatten.using_ints unflatten.int squeeze squeeze.dim squeeze.dims
unsqueeze expand expand_as broadcast_to broadcast_tensors permute transpose.int t movedim.int
movedim.intlist swapaxes select.int slice.Tensor narrow unbind.int chunk split.Tensor
split_with_sizes cat concat stack hstack vstack repeat tile repeat_interleave.self_int roll flip
diagonal diag_embed tril triu unfold pad constant_pad_nd reflection_pad1d reflection_pad2d
replication_pad1d replication_pad2d replication_pad3d pixel_shuffle pixel_unshuffle channel_shuffle
im2col meshgrid.indexing select_scatter slice_scatter diagonal_scatter fill.Tensor fill.Scalar copy
gather index.Tensor index_select embedding take_along_dim
"""
_COPIES_AND_CONSTANTS = """
clone contiguous alias detach detach_ lift_fresh_copy to.dtype to.dtype_layout to.device to.other
type_as _to_copy zeros ones full eye arange arange.start arange.start_step linspace scalar_tensor
zeros_like ones_like full_like new_zeros new_ones new_full sym_size.int _assert_tensor_metadata
"""
_ALLOWED = frozenset(
    name if "." in name else f"{name}.default"
    for group in (
        _ARITHMETIC, _COMPARISONS, _OVER_DIMENSIONS, _ACTIVATIONS, _PRODUCTS, _NORMS_AND_POOLS,
        _LOSSES, _SHAPES, _COPIES_AND_CONSTANTS,
    )
    for name in group.split()
)  # fmt: skip
#: What arguments must be, in one of these ways: nothing drawn, no running statistics written.
_ONLY: dict[str, tuple[dict[str, object], ...]] = {
    "dropout.default": ({"train": False},),
    "feature_dropout.default": ({"train": False},),
    "alpha_dropout.default": ({"train": False},),
    "scaled_dot_product_attention.default": ({"dropout_p": 0.0},),
    "batch_norm.default": ({"training": False},),
    "instance_norm.default": (
        {"use_input_stats": False},
        {"running_mean": None, "running_var": None},
    ),
}
#: Operations that raise where a place is not there, and their places: known before any patient.
_PLACES = {
    "gather.default": "index",
    "index.Tensor": "indices",
    "index_select.default": "index",
    "embedding.default": "indices",
    "take_along_dim.default": "indices",
}
#: Division of whole numbers raises where they are divided by 0.
_DIVISIONS = {
    "remainder.Tensor", "fmod.Tensor", "floor_divide.default", "div.Tensor_mode",
}  # fmt: skip
#: What a function is likely to be after that uses one of these.
_PICKS = ("item.", "local_scalar_dense.", "nonzero", "masked_select.", "index_put", "one_hot.")
#: Beginnings of the names of operations whose answer is not made of what they are given.
_UNWRITTEN = ("empty", "new_empty", "efficientzerotensor", "from_file", "resize")
_MASK = "pick by a mask, as (target * x).sum() or torch.where do"


def fault_of(node: fx.Node, of_patients: Collection[fx.Node]) -> str | None:
    """Return why an operation has no place in a record, or None.

    `of_patients` are those whose values depend on what the record is given.
    """
    target = node.target
    if target is operator.getitem:
        return None
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":  # noqa: SLF001 - torch has no public name for it
        return f"uses {target}, which is none of torch's own operations on tensors"
    name = str(target).removeprefix("aten.")
    if name not in _ALLOWED:
        return _why_not(target, name)
    return _fault_of_use(name, node, target) or _fault_of_values(name, node, target, of_patients)


def _fault_of_use(name: str, node: fx.Node, target: torch._ops.OpOverload) -> str | None:
    """Return why an operation has no place as it is used here, or None."""
    wanted, given = _ONLY.get(name, ({},)), _given(node, target)
    if any(all(_same(given[key], value) for key, value in one.items()) for one in wanted):
        return None
    drawn = torch.Tag.nondeterministic_seeded in target.tags
    what = "draws by chance" if drawn else "updates running statistics"
    words = " or ".join(", ".join(f"{k}={v}" for k, v in one.items()) for one in wanted)
    return f"{what} ({target}); a record takes it with {words} alone"


def _fault_of_values(
    name: str, node: fx.Node, target: torch._ops.OpOverload, of_patients: Collection[fx.Node]
) -> str | None:
    """Return why an operation must not be given what depends on a patient's values, or None."""
    if node not in of_patients:
        return None
    if name == "detach_.default":  # torch.tensor makes its constants by it
        return f"changes a tensor in place ({target})"
    given = _given(node, target)
    if name in _PLACES and _depends(given[_PLACES[name]], of_patients):
        return f"picks by values that may lead nowhere ({target}); {_MASK}"
    if name == "cross_entropy_loss.default" and not _is_real(given["target"]):
        return f"picks a class by its number ({target}); {_MASK}"
    if name in _DIVISIONS and not _is_real(node):
        return f"divides whole numbers, maybe by 0 ({target}); divide torch.float32"
    return None


def _why_not(target: torch._ops.OpOverload, name: str) -> str:
    plain = name.lstrip("_")
    if target._schema.is_mutable:  # noqa: SLF001 - torch has no public name for it
        return f"changes a tensor in place ({target})"
    if plain.startswith(_UNWRITTEN):
        return f"takes memory or a file as it finds it ({target}); it may hold other patients"
    if torch.Tag.nondeterministic_seeded in target.tags:
        return f"draws by chance ({target})"
    if plain.startswith(_PICKS):
        return f"picks by a tensor's values ({target}); {_MASK}"
    return (
        f"uses {target}, which is none of the operations that a record may hold "
        "(common/extensions/operations.py); write it with those"
    )


def _given(node: fx.Node, target: torch._ops.OpOverload) -> dict[str, Argument]:
    """Return what an operation is given, by the names of its arguments."""
    arguments = target._schema.arguments  # noqa: SLF001 - likewise
    found: dict[str, Argument] = {
        one.name: one.default_value for one in arguments if one.has_default_value()
    }
    found.update({one.name: value for one, value in zip(arguments, node.args, strict=False)})
    return found | node.kwargs


def _same(given: object, wanted: object) -> bool:
    return type(given) is type(wanted) and given == wanted


def _depends(given: Argument, of_patients: Collection[fx.Node]) -> bool:
    found: list[fx.Node] = []
    fx.map_arg([given], found.append)
    return any(node in of_patients for node in found)


def _is_real(node: object) -> bool:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return isinstance(value, torch.Tensor) and value.is_floating_point()
