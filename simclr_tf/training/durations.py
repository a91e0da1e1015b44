"""Durations: given in epochs or steps, resolved to steps here and nowhere else."""

import math

from simclr_tf.errors import UserError


def resolve_steps(
    num_examples: int, global_batch: int, *, epochs: float = 0, steps: int = 0
) -> int:
    """Returns a duration in steps: `steps` where given, else floor(N·E/B).

    Raises:
        UserError: if a duration is negative.
    """
    if steps < 0 or epochs < 0:
        raise UserError(f"a duration must not be negative: epochs {epochs}, steps {steps}")
    if steps:
        return steps
    # Of the whole product: flooring N/B first would lose up to E steps. The billionth is for
    # fractions such as 0.29, which floating point puts a little below a whole number of steps.
    return math.floor(num_examples * epochs / global_batch + 1e-9)
