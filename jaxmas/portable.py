"""Policies as programs that need none of the code that made them: ``jax.export``, for CPU, CUDA and TPU.

A program takes and gives flat arrays, a leading axis of any number of queries on all of them, and takes weights behind
them. What comes from others is looked through before anything of it is compiled: its arguments and results have to be
those of the setting, and it may hold nothing but arithmetic, so that all it can do is to compute.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jax.custom_batching import custom_vmap
from jax.interpreters import mlir
from jaxtyping import Array

from jaxmas.distributions import Categorical
from jaxmas.errors import JaxmasError, printable, refuse
from jaxmas.plans import Plan
from jaxmas.types import Environment, Executor, MetaPolicy, Observation, TeamObservation

PLATFORMS = ("cpu", "cuda", "tpu")
BYTECODE = b"ML\xefR"
"""How a program in bytes begins; as text it could hold what no bytes can."""
CALLS = {
    "stablehlo.custom_call": ("call_target_name", "shape_assertion"),
    "stablehlo.composite": ("name", r"chlo\.\w+"),
}
"""What a program may call besides its own functions: the check of its batch size, and arithmetic such as a top-k."""
FUNCTIONS = ("builtin.module", "func.func", "func.call", "func.return")
_PLAIN = """
abs add and atan2 batch_norm_grad batch_norm_inference batch_norm_training bitcast_convert broadcast_in_dim case cbrt
ceil cholesky clamp compare complex concatenate constant convert convolution cosine count_leading_zeros divide
dot_general dynamic_broadcast_in_dim dynamic_conv dynamic_gather dynamic_iota dynamic_pad dynamic_reshape
dynamic_slice dynamic_update_slice exponential exponential_minus_one fft floor gather get_dimension_size if imag iota
is_finite log log_plus_one logistic map maximum minimum multiply negate not optimization_barrier or pad popcnt power
real real_dynamic_slice reduce reduce_precision reduce_window remainder reshape return reverse rng_bit_generator
round_nearest_afz round_nearest_even rsqrt scatter select select_and_scatter shift_left shift_right_arithmetic
shift_right_logical sign sine slice sort sqrt subtract tan tanh transpose triangular_solve while xor
"""
ARITHMETIC = frozenset((*FUNCTIONS, *CALLS, *(f"stablehlo.{name}" for name in _PLAIN.split())))
"""Operations whose results follow from their operands alone; what has tokens or a state is not among them."""

Shapes = Sequence[jax.ShapeDtypeStruct]


# --- what is written


def designer_programs(env: Environment, params: Any, meta: MetaPolicy, weights: Any) -> dict[str, bytes]:
    """Return the programs of a meta-policy: its carry at the start of a query, and a plan with the next carry.

    Of the weights only the shapes matter: they are arguments of the program, the last of them.
    """

    def apply(weights: Any, words: Array, carry: Any, team: TeamObservation) -> list[Array]:
        plan, carry, _ = meta.apply(weights, carry, team, jax.random.wrap_key_data(words))
        return jax.tree.leaves((plan, carry))

    given = KEY, jax.eval_shape(meta.init), team_of(env, params)
    return {"designer-start": _start(meta.init), "designer-apply": _exported(apply, weights, given)}


def executor_programs(env: Environment, params: Any, executor: Executor, weights: Any) -> dict[str, bytes]:
    """Return the programs of an executor: its carry at the start of a query, and logits with the next carry."""

    def apply(weights: Any, words: Array, carry: Any, seen: Observation) -> list[Array]:
        carry, distribution = executor.apply(weights, carry, seen, seen.acting, jax.random.wrap_key_data(words))
        return [distribution.logits, *jax.tree.leaves(carry)]

    def init() -> Any:
        return executor.init(env.num_agents)

    given = KEY, jax.eval_shape(init), observation_of(env, params)
    return {"executor-start": _start(init), "executor-apply": _exported(apply, weights, given)}


def weights_of(tree: Any) -> bytes:
    """Return the numbers of a tree, one leaf after the other, low bytes first."""
    leaves = map(np.asarray, jax.tree.leaves(tree))
    return b"".join(leaf.astype(leaf.dtype.newbyteorder("<")).tobytes() for leaf in leaves)


def _start(init: Callable[[], Any]) -> bytes:
    return _serialised(lambda: jax.tree.leaves(init()), [])


def _exported(function: Callable[..., list[Array]], weights: Any, given: Any) -> bytes:
    """Return a function of weights and of what one query gives as a program of any number of queries."""
    (batch,) = export.symbolic_shape("b")
    leaves, tree = jax.tree.flatten(given)
    numbers, numbers_tree = jax.tree.flatten(jax.eval_shape(lambda: weights))

    def batched(*arrays: Array) -> list[Array]:
        own = jax.tree.unflatten(numbers_tree, arrays[len(leaves) :])
        return jax.vmap(lambda given: function(own, *jax.tree.unflatten(tree, given)))(list(arrays[: len(leaves)]))

    inputs = [jax.ShapeDtypeStruct((batch, *leaf.shape), leaf.dtype) for leaf in leaves]
    return _serialised(batched, [*inputs, *numbers])


def _serialised(function: Callable[..., Any], inputs: Shapes) -> bytes:
    """Return a function for every platform, without the places in the code that it was made in: nobody's folders."""
    frames = "jax_traceback_in_locations_limit"
    before = jax.config.values[frames]
    jax.config.update(frames, 0)
    try:
        lowered = export.export(jax.jit(function), platforms=PLATFORMS)(*inputs)
    finally:
        jax.config.update(frames, before)
    _check_operations(_module_of(lowered), "the policy")
    return bytes(lowered.serialize())


KEY = jax.ShapeDtypeStruct((2,), jnp.uint32)
"""The words of a key."""


def team_of(env: Environment, params: Any) -> TeamObservation:
    """Return the shapes of what the designer sees."""
    return jax.eval_shape(lambda key: env.reset(key, params)[1], jax.random.key(0))


def observation_of(env: Environment, params: Any) -> Observation:
    """Return the shapes of what the agents see."""

    def first(key: Array) -> Observation:
        return env.coordinate(key, env.reset(key, params)[0], env.plan_space.empty(), params)[1]

    return jax.eval_shape(first, jax.random.key(0))


# --- what is read

Weights = list[Array]
Carry = tuple[list[Array], Array]
"""A program's own carry, and what is counted of it."""


@dataclasses.dataclass(frozen=True, eq=False)
class PortablePolicy:
    """A meta-policy of programs; at the end of a query it reports how many entries of its plans had to be repaired."""

    env: Environment
    start: export.Exported
    program: export.Exported

    def init(self) -> Carry:
        """Return the carry of the program, and no repairs."""
        return list(self.start.call()), jnp.int32(0)

    def apply(self, params: Weights, carry: Carry, team: TeamObservation, key: Array) -> tuple[Plan, Carry, dict]:
        """Return the program's plan, made legal."""
        inner, repairs = carry
        given = [jax.random.key_data(key), *inner, *jax.tree.leaves(team)]
        fields, inner = _split(_called(self.program, given, params), len(_plan_shapes(self.env)))
        plan, more = self.env.plan_space.project(Plan(*fields))
        return plan, (inner, repairs + more), {}

    def report(self, carry: Carry) -> dict[str, Array]:
        """Return the repairs of a query's plans."""
        return {"repairs": carry[1]}


@dataclasses.dataclass(frozen=True, eq=False)
class PortableExecutor:
    """An executor of programs; at the end of a query it reports in how many agent-steps it gave no law to act by."""

    start: export.Exported
    program: export.Exported

    def init(self, num_agents: int) -> Carry:
        """Return the carry of the program, and no faults."""
        return list(self.start.call()), jnp.int32(0)

    def apply(
        self, params: Weights, carry: Carry, observation: Observation, mask: Array, key: Array
    ) -> tuple[Carry, Categorical]:
        """Return the program's law; illegal actions are excluded, and a law that is none counts as a fault."""
        inner, faults = carry
        given = [jax.random.key_data(key), *inner, *jax.tree.leaves(observation)]
        (logits,), inner = _split(_called(self.program, given, params), 1)
        legal = jnp.where(observation.action_mask, logits, -jnp.inf)
        wrong = mask & ~jnp.isfinite(jax.nn.logsumexp(legal, axis=1))
        return (inner, faults + jnp.sum(wrong)), Categorical(logits=jnp.where(wrong[:, None], 0.0, legal))

    def report(self, carry: Carry) -> dict[str, Array]:
        """Return the faults of a query."""
        return {"faults": carry[1]}


def load_designer(env: Environment, params: Any, start: bytes, apply: bytes) -> PortablePolicy:
    """Return the meta-policy of two programs that fit a world."""
    begin, program = _loaded("designer-start", start), _loaded("designer-apply", apply)
    carry, team = _carry_of("designer-start", begin), jax.tree.leaves(team_of(env, params))
    _check_signature("designer-apply", program, [KEY, *carry, *team], [*_plan_shapes(env), *carry])
    return PortablePolicy(env, begin, program)


def load_executor(env: Environment, params: Any, start: bytes, apply: bytes) -> PortableExecutor:
    """Return the executor of two programs that fit a world."""
    begin, program = _loaded("executor-start", start), _loaded("executor-apply", apply)
    carry, seen = _carry_of("executor-start", begin), jax.tree.leaves(observation_of(env, params))
    logits = jax.ShapeDtypeStruct((env.num_agents, env.num_actions), jnp.float32)
    _check_signature("executor-apply", program, [KEY, *carry, *seen], [logits, *carry])
    return PortableExecutor(begin, program)


def load_weights(name: str, policy: PortablePolicy | PortableExecutor, data: bytes) -> Weights:
    """Return the weights that a program takes from their numbers."""
    shapes = [each for each in policy.program.in_avals if not each.shape or isinstance(each.shape[0], int)]
    sizes = [each.dtype.itemsize * math.prod(each.shape) for each in shapes]
    refuse(len(data) != sum(sizes), f"{name} has {len(data):,} bytes; its program takes weights of {sum(sizes):,}")
    weights, at = [], 0
    for shape, size in zip(shapes, sizes, strict=True):
        numbers = np.frombuffer(data[at : at + size], shape.dtype.newbyteorder("<")).astype(shape.dtype)
        weights.append(jnp.asarray(numbers.reshape(shape.shape)))
        at += size
    return weights


def _plan_shapes(env: Environment) -> list[jax.ShapeDtypeStruct]:
    return jax.tree.leaves(jax.eval_shape(env.plan_space.empty))


def _split(leaves: Sequence[Array], count: int) -> tuple[list[Array], list[Array]]:
    return list(leaves[:count]), list(leaves[count:])


def _called(program: export.Exported, given: list[Array], weights: Weights) -> Sequence[Array]:
    """Call a program for one query; under ``vmap`` for all of them at once, with the same weights."""

    @custom_vmap
    def call(given: list[Array], weights: Weights) -> list[Array]:
        return [leaf[0] for leaf in program.call(*(leaf[None] for leaf in given), *weights)]

    @call.def_vmap
    def _(size: int, batched: Any, given: list[Array], weights: Weights) -> tuple[list[Array], list[bool]]:
        every = [
            leaf if known else jnp.broadcast_to(leaf, (size, *leaf.shape))
            for known, leaf in zip(batched[0], given, strict=True)
        ]
        outputs = list(program.call(*every, *weights))
        return outputs, [True] * len(outputs)

    return call(given, weights)


def _loaded(name: str, data: bytes) -> export.Exported:
    """Return a program in which nothing reaches beyond it."""
    try:
        program = export.deserialize(bytearray(data))
        refuse(not program.mlir_module_serialized.startswith(BYTECODE), "it is not in bytecode")
        lowest, highest = (
            export.minimum_supported_calling_convention_version,
            export.maximum_supported_calling_convention_version,
        )
        version = program.calling_convention_version
        refuse(not lowest <= version <= highest, f"calling convention {version}, not {lowest} to {highest}")
        module = _module_of(program)
    except Exception as error:
        said = printable(error, 120)
        raise JaxmasError(f"{name} is no program that this version of JAX reads ({said})") from error
    here = jax.default_backend()
    platform = {"gpu": "cuda"}.get(here, here)
    named = printable(", ".join(program.platforms), 80)
    refuse(platform not in program.platforms, f"{name} is for {named}, not for {platform}")
    refuse(program.nr_devices != 1, f"{name} is for {program.nr_devices} devices; programs are for one")
    effects = bool(program.ordered_effects or program.unordered_effects)
    refuse(effects or bool(program.disabled_safety_checks), f"{name} has effects, or checks of JAX turned off")
    _check_operations(module, name)
    _check_types(program, module, name)
    return program


def _module_of(program: export.Exported) -> mlir.ir.Module:
    with mlir.make_ir_context():
        return program.mlir_module(serialized=False)


def _check_operations(module: mlir.ir.Module, name: str) -> None:
    """Refuse a program that holds anything but arithmetic, or functions without a body."""
    called, beyond, empty = set(), set(), []

    def look(found: Any) -> mlir.ir.WalkResult:
        operation = found.operation
        if operation.name in CALLS:
            attribute, known = CALLS[operation.name]
            target = operation.attributes[attribute].value
            called.update([target] if re.fullmatch(known, target) is None else [])
        elif operation.name == "func.func":
            empty.extend([] if len(operation.regions[0].blocks) else [operation])
        # All of chlo is arithmetic. A module inside the module would be one more program.
        plain = operation.name in ARITHMETIC or operation.name.startswith("chlo.")
        nested = operation.name == "builtin.module" and operation.parent is not None
        beyond.update([] if plain and not nested else [operation.name])
        return mlir.ir.WalkResult.ADVANCE

    module.operation.walk(look)
    named = printable(", ".join(sorted(called)), 80)
    refuse(bool(called), f"{name} calls {named}, which is code outside; only arithmetic may be")
    named = printable(", ".join(sorted(beyond)), 80)
    refuse(bool(beyond), f"{name} holds the operation {named}; only arithmetic may be")
    refuse(bool(empty), f"{name} has a function without a body, which is code outside; only arithmetic may be")


def _check_types(program: export.Exported, module: mlir.ir.Module, name: str) -> None:
    """Refuse a program whose main function takes or gives other arrays than it says."""
    kept = list(program.module_kept_var_idx)
    ordered = kept == sorted(set(kept)) and set(kept) <= set(range(len(program.in_avals)))
    refuse(not ordered, f"{name} keeps other arguments than it takes, or not in order")
    with module.context, mlir.ir.Location.unknown():

        def typed(shape: Sequence[Any], dtype: Any) -> mlir.ir.Type:
            any_size = mlir.ir.ShapedType.get_dynamic_size()
            sizes = [size if isinstance(size, int) else any_size for size in shape]
            return mlir.ir.RankedTensorType.get(sizes, mlir.dtype_to_ir_type(np.dtype(dtype)))

        functions = mlir.ir.SymbolTable(module.operation)
        refuse("main" not in functions, f"{name} has no function main, with which programs begin")
        main: Any = functions["main"]
        # Programs for several platforms take the place of theirs among them first.
        taken = [typed((), np.int32)] if len(program.platforms) > 1 else []
        taken += [typed(program.in_avals[at].shape, program.in_avals[at].dtype) for at in kept]
        given = [typed(each.shape, each.dtype) for each in program.out_avals]
        for what, found, said in (("takes", main.type.inputs, taken), ("gives", main.type.results, given)):
            listed = [", ".join(map(str, types)) for types in (found, said)]
            theirs, ours = (printable(text, 120) for text in listed)
            refuse(list(found) != said, f"{name} {what} {theirs}; it says that it {what} {ours}")


def _carry_of(name: str, start: export.Exported) -> list[jax.ShapeDtypeStruct]:
    """Return the shapes of a carry, which has to be flat and of fixed size."""
    refuse(bool(start.in_avals), f"{name} takes {len(start.in_avals)} arguments; it has to take none")
    shapes = [jax.ShapeDtypeStruct(each.shape, each.dtype) for each in start.out_avals]
    flat: Any = jax.tree.structure([0] * len(shapes))
    refuse(flat != start.out_tree, f"{name} gives {printable(start.out_tree, 80)}; it has to give a list of arrays")
    return shapes


def _check_signature(name: str, program: export.Exported, inputs: Shapes, outputs: Shapes) -> None:
    """Refuse a program that takes or gives anything but one array per leaf, for any number of queries, and weights."""
    taken, weights = program.in_avals[: len(inputs)], program.in_avals[len(inputs) :]
    for what, found, wanted in (("takes", taken, inputs), ("gives", program.out_avals, outputs)):
        counts = f"{name} {what} {len(found)} arrays; in this setting it has to be {len(wanted)}"
        refuse(len(found) != len(wanted), counts)
        for place, (one, other) in enumerate(zip(found, wanted, strict=True)):
            size, *others = one.shape or (0,)
            # One and the same name in all places: neither a number nor something worked out, such as 2*b.
            plain = str(size).isidentifier() and size == program.in_avals[0].shape[0]
            right = plain and tuple(others) == other.shape and one.dtype == other.dtype
            sizes = ",".join(map(str, ("b", *other.shape)))
            differs = f"array {place} that {name} {what} is {printable(one.str_short(), 80)}"
            refuse(not right, f"{differs}; it has to be {other.dtype.name}[{sizes}], for any b, the same everywhere")
    fixed = all(isinstance(size, int) for one in weights for size in one.shape)
    refuse(not fixed, f"{name} takes weights whose size hangs on the number of queries; weights are of one size")
    flat = jax.tree.structure(((0,) * len(program.in_avals), {})), jax.tree.structure([0] * len(outputs))
    found = program.in_tree, program.out_tree
    refuse(found != flat, f"{name} has to take arrays and give a list of arrays")
