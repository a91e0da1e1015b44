"""TensorFlow alone: features, and everything else that the encoder gives.

python saved_model.py EXPORT FOLDER --image_size=32
"""

import tensorflow as tf
from folder import parse_args, print_and_save, read_folder

options = parse_args(__doc__)
images, _, _ = read_folder(options.folder, options.image_size)

encoder = tf.saved_model.load(options.export)
features = encoder(images)  # the same as encoder(images, training=False)
print_and_save(options, features)

for name, output in sorted(encoder.signatures["all_outputs"](images=tf.constant(images)).items()):
    print(f"{name}: {output.shape}")
