"""TensorFlow Addons and tf_keras: LAMB and a triplet loss over the encoder.

python addons.py EXPORT FOLDER --image_size=32

TensorFlow Addons ended at 0.23, with wheels for Python up to 3.11, and looks for Keras's inside
under its old name.
"""

import os
import sys

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # before TensorFlow is imported

import tf_keras as keras

sys.modules["keras"] = keras
import tensorflow_addons as tfa  # noqa: E402
import tensorflow_hub as hub  # noqa: E402
from folder import parse_args, print_and_save, read_folder  # noqa: E402

options = parse_args(__doc__, ("--epochs", 40, "of training"))
images, labels, names = read_folder(options.folder, options.image_size)

encoder = hub.KerasLayer(options.export, trainable=True)
print_and_save(options, encoder(images))

model = keras.Sequential([keras.Input(images.shape[1:]), encoder, keras.layers.UnitNormalization()])
model.compile(tfa.optimizers.LAMB(0.05), tfa.losses.TripletSemiHardLoss())
losses = model.fit(
    images, labels, batch_size=len(images), epochs=options.epochs, verbose=0
).history["loss"]
print(f"loss {losses[0]:.3f} → {losses[-1]:.3f}")
