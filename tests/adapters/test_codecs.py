"""Both codecs are their settings: frozen, comparable, and the same after a trip through metadata."""

import copy
import json
import pickle
from dataclasses import FrozenInstanceError, replace

import numcodecs
import numpy as np
import pytest

from moec_zarr import MoECCodec, MoECError, MoECSerializer
from moec_zarr.settings import Settings

BOTH = pytest.mark.parametrize("codec_type", [MoECCodec, MoECSerializer])
FAST = {"ratio": 20, "effort": "fast"}


@BOTH
def test_parameters_are_attributes(codec_type):
    codec = codec_type(psnr=40, missing=-1)
    assert isinstance(codec, Settings)
    assert (codec.ratio, codec.psnr, codec.missing) == (None, 40, -1)
    assert (codec.effort, codec.experts, codec.seed) == ("balanced", None, 0)
    assert codec_type(**FAST).ratio == 20
    with pytest.raises(FrozenInstanceError):
        codec.psnr = 50


@BOTH
def test_equality_and_hash(codec_type):
    codec = codec_type(**FAST)
    assert codec == codec_type(ratio=20.0, effort="fast")
    assert codec != codec_type(ratio=21, effort="fast")
    assert codec != Settings(**FAST)
    assert len({codec, codec_type(**FAST), codec_type(ratio=21)}) == 2
    assert replace(codec, seed=3) == codec_type(**FAST, seed=3)


def test_the_codecs_of_both_formats_differ():
    codec, serializer = MoECCodec(**FAST), MoECSerializer(**FAST)
    assert codec != serializer
    assert len({codec, serializer}) == 2
    assert codec.serializer() == serializer


@BOTH
@pytest.mark.parametrize("twin", [copy.copy, copy.deepcopy, lambda codec: pickle.loads(pickle.dumps(codec))])
def test_copies_and_pickles(codec_type, twin):
    codec = codec_type(psnr=40, experts=3, missing=-999.5, seed=7)
    again = twin(codec)
    assert again == codec
    assert hash(again) == hash(codec)
    assert type(again) is codec_type


@BOTH
def test_repr_makes_the_codec_again(codec_type):
    codec = codec_type(**FAST)
    assert repr(codec) == f"{codec_type.__name__}(ratio=20, effort='fast')"
    for each in (codec, codec_type(psnr=40.5, missing=-1, experts=2, seed=1)):
        assert eval(repr(each)) == each


@BOTH
def test_arguments_are_named_and_checked(codec_type):
    with pytest.raises(TypeError):
        codec_type(1000)
    with pytest.raises(MoECError, match="exactly one target"):
        codec_type()


def test_configuration_holds_plain_types_and_no_defaults():
    codec = MoECCodec(ratio=np.float32(1000), missing=np.int16(-999), seed=np.int64(3))
    config = codec.get_config()
    assert json.loads(json.dumps(config)) == {"id": "moec", "ratio": 1000, "missing": -999, "seed": 3}
    assert MoECCodec.from_config(config) == codec
    assert MoECCodec(psnr=40).get_config() == {"id": "moec", "psnr": 40}
    entry = codec.serializer().to_dict()
    assert entry == {"name": "moec_zarr.moec", "configuration": {"ratio": 1000, "missing": -999, "seed": 3}}
    assert MoECSerializer.from_dict(json.loads(json.dumps(entry))) == codec.serializer()


def test_configuration_of_another_version_is_refused():
    with pytest.raises(MoECError, match=r"unknown setting 'rate'.*upgrade"):
        numcodecs.get_codec({"id": "moec", "rate": 20})
