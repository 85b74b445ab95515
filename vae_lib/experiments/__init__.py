"""Experiments: the figures and tables of papers that the book reproduces, each by one command.

``python -m vae_lib reproduce NAME --scale smoke|laptop|full`` runs the units of an experiment, writes a record as JSON
and draws the figure from it. Chapters 6 and 8 read the records.
"""

from vae_lib.experiments.aevb_fig2 import AEVB_FIG2
from vae_lib.experiments.aevb_fig3 import AEVB_FIG3
from vae_lib.experiments.aevb_pictures import AEVB_FIG4, AEVB_FIG5
from vae_lib.experiments.experiment import Experiment, Scale, Unit
from vae_lib.experiments.iwae_table1 import IWAE_TABLE1

EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment for experiment in (AEVB_FIG2, AEVB_FIG3, AEVB_FIG4, AEVB_FIG5, IWAE_TABLE1)
}

__all__ = ["EXPERIMENTS", "Experiment", "Scale", "Unit"]
