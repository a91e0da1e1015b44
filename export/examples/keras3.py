"""Keras 3: the frozen encoder as a TFSMLayer, with a classifier on top.

python keras3.py EXPORT FOLDER --image_size=32

A TFSMLayer that is trainable breaks in Keras 3's optimizers; to fine-tune, take tf_keras
(hub_keras_layer.py) or a loop of your own (training_loop.py).
"""

import keras
from folder import parse_args, print_and_save, read_folder

assert keras.__version__.startswith("3."), "TF_USE_LEGACY_KERAS must not be set"
options = parse_args(__doc__, ("--epochs", 30, "of training"))
images, labels, names = read_folder(options.folder, options.image_size)

encoder = keras.layers.TFSMLayer(options.export, call_endpoint="serving_default", trainable=False)
inputs = keras.Input(images.shape[1:])
features = encoder(inputs)["features"]
print_and_save(options, keras.Model(inputs, features).predict(images, verbose=0))

outputs = keras.layers.Dense(len(names))(keras.layers.BatchNormalization()(features))
model = keras.Model(inputs, outputs)
model.compile(
    keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
)
losses = model.fit(images, labels, epochs=options.epochs, verbose=0).history["loss"]
print(f"loss {losses[0]:.3f} → {losses[-1]:.3f}")
