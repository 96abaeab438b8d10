"""MAD: an architecture judged by six synthetic tasks (arXiv 2403.17844).

Owns: what is exported. `judge` is all that a search needs; `starc mad` prints what it returns.
Refuses: the tasks (runtime/tasks), the training loop (runtime/train), and the terminal.
"""

from starc.mad.judging import judge
from starc.mad.profiles import PROFILES, Profile, find_profile
from starc.mad.results import Judgement, read_judgements

__all__ = ["PROFILES", "Judgement", "Profile", "find_profile", "judge", "read_judgements"]
