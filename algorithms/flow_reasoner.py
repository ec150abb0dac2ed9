"""FlowReasoner-style (simulated): a designer of programs, distilled from a teacher, then improved by what plans earn.

| | FlowReasoner (arXiv 2504.15257) | here |
|---|---|---|
| designer | a reasoning language model that writes code | a script decoder over the team observation |
| teacher | a stronger model's designs | a search: designs tried on every query, the better ones imitated |
| RL | GRPO on execution feedback | the same on plays, after the first part of the run, which is the distillation |
| advantage | over the group's spread | over the batch's: the group's blows up the cost of plans that all fail |
| reward | performance, complexity, diversity or efficiency of a design | success − weights · complexity, cost |
| rounds per query | several, on a verifier's feedback | one; with ``--coordination-interval`` more, on progress |
| invalid program | no reward | the grammar allows none; in ``script-free`` it earns ``invalid_reward`` |

Ablations: ``distil_share`` 0 (no distillation) or 1 (no RL), each weight 0.
"""

import dataclasses
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmas.design_policies import LearnedPolicy, Teacher
from jaxmas.designers import DesignerConfig, at_the_end
from jaxmas.errors import check_numbers
from jaxmas.groups import returns, score_designs
from jaxmas.learners import Distillation, entropy_weight, imitated, imitation, optimiser
from jaxmas.learning import against_the_others, descend, group_normalised, surrogate_loss
from jaxmas.logs import log_plays
from jaxmas.registry import ALGORITHMS
from jaxmas.rollout import MetaStep


@dataclasses.dataclass(frozen=True)
class FlowReasonerConfig(DesignerConfig):
    """Settings of FlowReasoner."""

    called: ClassVar[str] = "flow-reasoner"
    space: Literal["script", "script-free"] = "script"
    learner: Literal["grpo"] = "grpo"
    """Of what follows the distillation."""
    distil_share: float = 0.25
    """Part of the updates that distil."""
    performance: float = 1.0
    complexity: float = 0.02
    efficiency: float = 0.12
    """Weights of success, of members and links, and of cost."""
    invalid_reward: float = -1.0
    advantage: Literal["batch", "group"] = "batch"
    """Whose spread a plan's lead over the others of its query is measured in: the batch's, or its own group's."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot be."""
        super().__post_init__()
        check_numbers(self.called, self, ("distil_share",), 0, 1)
        check_numbers(self.called, self, ("performance", "complexity", "efficiency"), 0)

    @property
    def how(self) -> "DistilThenGRPO":
        """Return the learner."""
        return DistilThenGRPO()

    def utility(self, step: MetaStep) -> Float[Array, ""]:
        """Return w₁ · success − w₂ · complexity − w₃ · cost at the end of a query."""
        success, cost = step.metrics["success"], step.metrics["cost"]
        size = step.metrics["complexity"] if "complexity" in step.metrics else jnp.float32(0)
        earned = self.performance * success - self.complexity * size - self.efficiency * cost
        return at_the_end(step, jnp.where(step.info["valid"], earned, self.invalid_reward))


class DistilThenGRPO(Distillation):
    """Distillation for a part of the run, then group-relative policy optimisation of the same weights."""

    def learn(
        self, config: Any, policy: LearnedPolicy, trial: Any, params: Any, memory: Any
    ) -> tuple[Any, Any, dict[str, Array]]:
        """Play, and learn as it is the time for; what the teacher earned is NaN once there is none."""
        distils = trial.progress < config.distil_share
        steps = trial.play(Teacher(policy), (params, jnp.where(distils, 0.5, 0.0)))
        weight, teacher = imitated(steps, config.temperature)
        relative = {"group": group_normalised, "batch": against_the_others}[config.advantage]
        advantage = jnp.broadcast_to(relative(returns(steps))[..., None], steps.reward.shape)
        old, counts = steps.info["log_prob"], steps.steps > 0
        options = {"clip": config.clip, "entropy_weight": entropy_weight(config, trial.progress)}

        def loss(weights):
            scored = score_designs(policy, weights, steps)
            improved, report = surrogate_loss(lambda _: scored, old, advantage, counts, **options)(weights)
            return jnp.where(distils, imitation(weight, scored[0]), improved), report

        params, memory, report = descend(loss, optimiser(config, config.epochs), params, memory, config.epochs)
        logs = log_plays(steps, returns(steps)) | report
        return params, memory, logs | {"teacher": jnp.where(distils, teacher, jnp.nan)}


ALGORITHMS.add(
    "flow-reasoner", FlowReasonerConfig, "programs per query, distilled from search, then GRPO (FlowReasoner-style)"
)
