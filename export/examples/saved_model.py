"""TensorFlow alone: features, and everything else that the encoder gives.

python saved_model.py EXPORT FOLDER --image_size=32
"""

import tensorflow as tf
from folder import arguments, read_folder, save

options = arguments(__doc__)
images, _, _ = read_folder(options.folder, options.image_size)

encoder = tf.saved_model.load(options.export)
features = encoder(images)  # the same as encoder(images, training=False)
save(options, features)

for name, output in sorted(encoder.signatures["all_outputs"](images=tf.constant(images)).items()):
    print(f"{name}: {output.shape}")
