"""Write the features of any images to files, and find the nearest images of one.

Takes the encoder of a run or an exported SavedModel, and sees images as evaluation does. Memory
stays bounded however many there are, and a command that was stopped goes on from there.
docs/embeddings.md says what the files hold.

  simclr-tf embed --model_dir=runs/a --format=npy,parquet
  simclr-tf embed --model_dir=runs/a --dataset=folder:photos --nearest=photos/cat.jpg
"""

from absl import flags

from simclr_tf.errors import UserError
from simclr_tf.options import parse_choices

_FORMATS = ("npy", "parquet", "projector")


def define(values: flags.FlagValues) -> dict[str, list[str]]:
    def string(name, default, text):
        flags.DEFINE_string(name, default, text, flag_values=values)

    def integer(name, default, text, high=None):
        flags.DEFINE_integer(name, default, text, 1, high, flag_values=values)

    string("model_dir", None, "The run whose newest checkpoint embeds.")
    string("encoder", None, "An exported SavedModel in place of a run; needs output and dataset.")
    string("output", None, "The directory to write; empty: RUN/embeddings/DATASET-SPLIT-step-STEP.")
    string("dataset", "", "What is embedded; the run's own if empty.")
    string("split", "", "Of the dataset; the run's train_split, or train, if empty.")
    string("data_dir", "", "Where TFDS datasets are prepared; the run's if empty.")
    flags.DEFINE_boolean(
        "skip_unreadable",
        False,
        "Leave files that are not images out; on where the run has it.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "representation",
        "h",
        ["h", "projection"],
        "The encoder's output, or the projection head's.",
        flag_values=values,
    )
    integer("eval_batch_size", 256, "Images per call of the encoder.")
    string("format", "npy", f"Any of {', '.join(_FORMATS)}, with commas between them.")
    integer(
        "projector_images",
        10_000,
        "The most that the projector shows, evenly spaced; browsers grow slow with more.",
        100_000,
    )
    string("nearest", "", "An image file, or an id or number of the set: finds what is near it.")
    integer("neighbours", 10, "So many of them.")
    return {
        "What": ["model_dir", "encoder", "representation"],
        "Data": ["dataset", "split", "data_dir", "skip_unreadable", "eval_batch_size"],
        "Where": ["output", "format", "projector_images"],
        "Search": ["nearest", "neighbours"],
    }


def run(values: flags.FlagValues) -> None:
    if bool(values.model_dir) == bool(values.encoder):
        raise UserError("name what embeds: either --model_dir=RUN or --encoder=SAVEDMODEL")
    if values.encoder and not (values.output and values.dataset):
        raise UserError("--encoder needs --output=DIR and --dataset as well")
    if values.output and "://" in values.output:
        raise UserError(
            f"--output={values.output}: must be a directory of a file system; mount the bucket, or "
            "copy the files there afterwards"
        )
    formats = parse_choices("format", values.format, _FORMATS)
    if not formats:
        raise UserError(f"--format is empty: name any of {', '.join(_FORMATS)}")

    from simclr_tf.embedding import EmbedOptions, embed_run, embed_saved_model

    request = EmbedOptions(
        dataset=values.dataset,
        split=values.split,
        data_dir=values.data_dir,
        skip_unreadable=values.skip_unreadable,
        representation=values.representation,
        formats=formats,
        projector_images=values.projector_images,
        nearest=values.nearest,
        neighbours=values.neighbours,
        batch_size=values.eval_batch_size,
    )
    if values.encoder:
        embed_saved_model(values.encoder, request, values.output)
    else:
        embed_run(values.model_dir, request, values.output)
