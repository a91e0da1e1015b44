"""Learning rate schedule, and scaling by the batch size [v1 §2.3]."""

import math

import tensorflow as tf
import tf_keras as keras


def peak_learning_rate(base: float, global_batch: int, scaling: str = "linear") -> float:
    """Scales the base rate to the global batch [v1 App. B.1].

    Args:
        base: the base rate (0.3 for linear, 0.075 for sqrt in the paper, with LARS).
        global_batch: images per step over all replicas.
        scaling: "linear" (base·B/256), "sqrt" (base·√B) or "none" (base).

    Raises:
        ValueError: `scaling` is not one of these.

    Example:
    >>> import simclr_tf as st
    >>> st.optimizers.peak_learning_rate(1.0, 512)
    2.0
    """
    if scaling == "linear":
        return base * global_batch / 256.0
    if scaling == "sqrt":
        return base * math.sqrt(global_batch)
    if scaling == "none":
        return base
    raise ValueError(f"scaling must be 'linear', 'sqrt' or 'none', got {scaling!r}")


@keras.utils.register_keras_serializable(package="simclr_tf")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up from 0 to the peak, then half a cosine to 0 at the last step [v1 §2.3].

    Args:
        peak: learning rate at step `warmup_steps`.
        warmup_steps: at least 0; if it exceeds `total_steps`, the run ends during its warm-up.
        total_steps: steps of the run.

    Example:
    >>> import simclr_tf as st
    >>> schedule = st.optimizers.WarmupCosine(peak=2.0, warmup_steps=10, total_steps=100)
    >>> [round(float(schedule(step)), 3) for step in (0, 5, 10, 55, 100)]
    [0.0, 1.0, 2.0, 1.0, 0.0]
    """

    def __init__(self, peak: float, warmup_steps: int, total_steps: int):
        self.peak = peak
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps

    def __call__(self, step):
        step = tf.cast(step, tf.float32)
        warmup = step / max(1, self.warmup_steps)
        decay_steps = max(1, self.total_steps - self.warmup_steps)
        progress = tf.clip_by_value((step - self.warmup_steps) / decay_steps, 0.0, 1.0)
        cosine = 0.5 * (1.0 + tf.cos(math.pi * progress))
        return self.peak * tf.where(step < self.warmup_steps, warmup, cosine)

    def get_config(self) -> dict[str, float]:
        return {
            "peak": self.peak,
            "warmup_steps": self.warmup_steps,
            "total_steps": self.total_steps,
        }
