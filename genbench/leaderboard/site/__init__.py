"""The static site: a start page, a page a track, a page a model, one on the protocol. Works from ``file://``, forbids any network.

The tables are plain HTML that a small script of ours sorts, searches and filters. The bundle of DataTables that itables ships was tried
first: it starts from inline scripts that import a module from a blob, and adds style elements, neither of which a strict policy lets
through; it weighs 0.7 MB against 10 kB, and sorts controls and the floor among the models.
"""

from genbench.leaderboard.site.frame import ASSETS
from genbench.leaderboard.site.model import model_page
from genbench.leaderboard.site.over_tracks import over_tracks
from genbench.leaderboard.site.protocol import protocol_page
from genbench.leaderboard.site.start import start_page
from genbench.leaderboard.site.track import FIGURES, track_page

__all__ = ["ASSETS", "FIGURES", "model_page", "over_tracks", "protocol_page", "start_page", "track_page"]
