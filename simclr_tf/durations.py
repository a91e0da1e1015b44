"""Durations: given in epochs or steps, resolved to steps here and nowhere else."""

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
    # The fraction of the whole product: flooring N/B first would lose up to E steps.
    return int(num_examples * epochs // global_batch)
