"""TensorFlow alone: fine-tuning in a loop of one's own, by `trainable_variables`.

python training_loop.py EXPORT FOLDER --image_size=32
"""

import tensorflow as tf
from folder import parse_args, print_and_save, read_folder

options = parse_args(__doc__, ("--steps", 50, "of training"))
images, labels, names = read_folder(options.folder, options.image_size)

encoder = tf.saved_model.load(options.export)
features = encoder(images)
print_and_save(options, features)

kernel = tf.Variable(tf.zeros([features.shape[1], len(names)]))
bias = tf.Variable(tf.zeros([len(names)]))
variables = [*encoder.trainable_variables, kernel, bias]


@tf.function
def step():
    with tf.GradientTape() as tape:
        logits = encoder(images, training=True) @ kernel + bias
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        loss = tf.reduce_mean(losses) + sum(r() for r in encoder.regularization_losses)
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        variable.assign_sub(0.2 * gradient)
    return loss


losses = [float(step()) for _ in range(options.steps)]
print(f"loss {losses[0]:.3f} → {losses[-1]:.3f}")
