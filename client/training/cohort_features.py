"""A cohort as input of a run's network: frozen features for images, split into a Site."""

from __future__ import annotations

import hashlib

import torch

from client.cohort.site_cohort import SiteCohort
from client.cohort.split import SplitKey
from client.site.cache import Cache, key_of
from client.training.training_site import Site
from common.config.run_config import RunConfig
from common.data.kept_items import Items, pieces


def with_features(cohort: SiteCohort, config: RunConfig, cache: Cache) -> SiteCohort:
    """Return the cohort with frozen features in place of images, computed once and cached."""
    images, rules = cohort.items.image, config.cohort.images
    if rules is not None and rules.slide is not None:
        return cohort  # tiles became features when their slide was read
    from common.models import extract_features, followed

    if len(images) == 0:  # nobody can be used, and a private run goes on: the width counts
        blank = torch.zeros((1, *images.shape[1:]), dtype=images.dtype)
        return cohort.with_images(extract_features(blank, config.model, config.extensions)[:0])
    key = key_of(
        "features one by one",
        *followed(config.model, tuple(images.shape[1:]), config.extensions),
        list(images.shape),
        _content(images),
    )
    kept = cache.array(key)
    if kept is None:
        found = [extract_features(p, config.model, config.extensions) for p in pieces(images)]
        kept = torch.cat(found).numpy()
        cache.keep_array(key, kept)
    return cohort.with_images(torch.tensor(kept, dtype=torch.float32))


def _content(images: Items) -> str:
    digest = hashlib.sha256()
    for part in pieces(images):
        digest.update(part.contiguous().numpy().data)
    return digest.hexdigest()


def site_of(cohort: SiteCohort, config: RunConfig, key: SplitKey, fold: int = 0) -> Site:
    """Return the cohort's site with this key's and fold's patients in each part."""
    parts = cohort.split(config.cohort.split, key, fold)
    return Site(
        name=cohort.name, train=parts["train"], validation=parts["validation"], test=parts["test"]
    )
