"""Write the features of images to files, and find the images nearest to one.

Uses the encoder of a run or an exported SavedModel with the preprocessing of `simclr-tf evaluate`.
Memory use does not grow with the dataset, and an interrupted command resumes. docs/embeddings.md
describes the files.

  simclr-tf embed --model_dir=runs/a --format=npy,parquet
  simclr-tf embed --model_dir=runs/a --dataset=folder:photos --nearest=photos/cat.jpg
"""

from absl import flags

from simclr_tf.api.results import embed
from simclr_tf.cli.flags import Groups, define_command, explicit_options
from simclr_tf.embedding.options import EmbedOptions
from simclr_tf.errors import UserError


def define(values: flags.FlagValues) -> Groups:
    inputs = {
        "model_dir": "Run directory; its newest checkpoint computes the features.",
        "encoder": "Exported SavedModel instead of a run; requires output and dataset.",
    }
    output = {"output": "Output directory. Default: RUN/embeddings/DATASET-SPLIT-step-STEP."}
    return define_command(values, embed.option_sets, inputs, output)


def run(values: flags.FlagValues) -> None:
    # A run has both, and Python may omit the output.
    if values.encoder and not values.model_dir and not (values.output and values.dataset):
        raise UserError(
            f"--encoder={values.encoder}: expected --output=DIR and --dataset with it. Fix: set "
            "both"
        )
    explicit = explicit_options(values, embed.option_sets)
    options = EmbedOptions(**explicit)

    from simclr_tf.embedding.embed import default_output_dir, usage_hint
    from simclr_tf.embedding.nearest import format_neighbors

    output = values.output
    if values.model_dir and not output:
        output = default_output_dir(values.model_dir, options)
    result = embed(values.model_dir, encoder=values.encoder, output=output, **explicit)
    if result.neighbors:
        print(format_neighbors(result.query, result.neighbors))
    print(usage_hint(result))
