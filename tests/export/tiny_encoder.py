"""A small encoder with nested layers and batch statistics, and images for it."""

import numpy as np
import tf_keras as keras

SIZE, FEATURES = 16, 4
IMAGES = np.random.default_rng(0).uniform(size=(5, SIZE, SIZE, 3)).astype(np.float32)


def give_statistics(model: keras.Model, inputs: np.ndarray) -> keras.Model:
    """Gives a model gammas, betas and moving statistics unlike those of a fresh one."""
    rng = np.random.default_rng(0)
    for _ in range(3):
        model(inputs, training=True)
    model.set_weights(
        [w + 0.3 * rng.uniform(size=w.shape) if w.ndim == 1 else w for w in model.get_weights()]
    )
    return model


def tiny_encoder(dtype: str = "float32", synchronized: bool = False) -> keras.Model:
    images = keras.Input((SIZE, SIZE, 3), dtype="float64" if dtype == "float64" else "float32")
    regularizer = keras.regularizers.L2(0.5)
    conv = keras.layers.Conv2D(4, 3, kernel_regularizer=regularizer, dtype=dtype, name="conv")
    norm = keras.layers.BatchNormalization(
        momentum=0.5, synchronized=synchronized, dtype=dtype, name="norm"
    )
    # A model within the model: configurations nest.
    inner = keras.Sequential([keras.Input((14, 14, 4)), norm, keras.layers.ReLU(dtype=dtype)])
    pool = keras.layers.GlobalAveragePooling2D(dtype=dtype)
    return give_statistics(keras.Model(images, pool(inner(conv(images)))), IMAGES)
