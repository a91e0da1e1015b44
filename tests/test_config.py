"""Configs to and from JSON: what a config.json of another version may say."""

import pytest

from simclr_tf import config
from simclr_tf.errors import UserError

RUN = config.PretrainConfig(config.Data(dataset="shapes"), optimization=config.Optimization(seed=3))


def test_a_config_comes_back_as_it_was():
    assert config.from_json(config.PretrainConfig, config.to_json(RUN)) == RUN


def test_an_option_younger_than_the_file_has_its_default():
    document = config.to_json(RUN)
    del document["watching"]["profile"]
    assert config.from_json(config.PretrainConfig, document) == RUN


@pytest.mark.parametrize("name", ["nt_xent", "temperature", "optimization"])
def test_what_is_unknown_or_cannot_be_missing_is_named(name):
    document = config.to_json(RUN)
    if name == "nt_xent":
        document["head"][name] = 1
    else:
        del (document["head"] if name in document["head"] else document)[name]
    with pytest.raises(UserError, match=f"missing or unknown: {name}"):
        config.from_json(config.PretrainConfig, document)
