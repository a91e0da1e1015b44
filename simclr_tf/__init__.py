"""SimCLR for TensorFlow 2 and Keras."""

import os

# KerasCV and TensorFlow Addons follow whatever `tf.keras` names when first touched; everything
# here is written against tf_keras, so that must be the same library.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
# TensorFlow leaves oneDNN's kernels off on processors without AVX-512 VNNI; with AVX2 alone they
# make the backward pass of a convolution several times faster. Set to 0 to have the default back.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

__version__ = "0.1.0"


def __getattr__(name):
    # TensorFlow takes seconds to import; `import simclr_tf` alone must not wait for it.
    if name == "load":
        from simclr_tf.runs.load import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
