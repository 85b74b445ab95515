"""Data sets: verified downloads, the embedded digits, and sprites with known factors."""

from vae_lib.data.dataset import Dataset, DatasetError, DatasetInfo, Split
from vae_lib.data.folder import data_folder
from vae_lib.data.moons import two_moons, two_moons_log_density
from vae_lib.data.registry import dataset_info, dataset_names, load_dataset
from vae_lib.data.sprites import FACTORS as SPRITE_FACTORS
from vae_lib.data.sprites import render_sprites, sprite_factors

__all__ = [
    "SPRITE_FACTORS",
    "Dataset",
    "DatasetError",
    "DatasetInfo",
    "Split",
    "data_folder",
    "dataset_info",
    "dataset_names",
    "load_dataset",
    "render_sprites",
    "sprite_factors",
    "two_moons",
    "two_moons_log_density",
]
