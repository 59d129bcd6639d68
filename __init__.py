"""Forearm plans robot-arm actions by imagination.

It records episodes of MuJoCo arms, learns an action-conditioned latent world model from them, and picks actions in
closed loop with a sampling planner that minimises an energy. `forearm --help` lists what the command line offers.
"""

from .gymnasium_ids import register_when_imported
from .version import __version__

register_when_imported()

__all__ = ["__version__"]
