"""`python -m simclr_tf` is the command `simclr-tf`."""

from simclr_tf.cli.main import console

if __name__ == "__main__":
    console()
