"""Wan video models: load, build, measure, save. The only place that knows diffusers' names.

A model folder is a diffusers folder; what diffusers has no place for (defaults, a student's
schedule, its causal form) is in its `colibri.json`. Wan's own files load too. Importing this needs
no torch, using it does.
"""

from colibri.core.wan.family import FAMILIES, Causal, Defaults, ModelFamily
from colibri.core.wan.folder import (
    ABOUT,
    FORMAT,
    describe,
    find_folder,
    hash_part,
    hush,
    load,
    part_files,
    save,
)
from colibri.core.wan.model import (
    PARTS,
    WEIGHTS,
    DType,
    Footprint,
    WanModel,
    build,
    build_meta,
    measure,
)

__all__ = [
    "ABOUT",
    "FAMILIES",
    "FORMAT",
    "PARTS",
    "WEIGHTS",
    "Causal",
    "DType",
    "Defaults",
    "Footprint",
    "ModelFamily",
    "WanModel",
    "build",
    "build_meta",
    "describe",
    "find_folder",
    "hash_part",
    "hush",
    "load",
    "measure",
    "part_files",
    "save",
]
