"""The one place that knows about processes: where this one stands, how they meet, and every collective the package makes.

world.py        where this process stands, from the environment of its launcher
meeting.py      the store through which the ranks meet, and who is waited for
waiting.py      reports every 10 s who is waited for in a collective, and who was to blame when it fails
peers.py        the other ranks as this one sees them: how far they have come, whether they are alive
last_words.py   how each rank ended, for those that miss it
group.py        the process group, held open around a run
collectives.py  every collective the package makes
"""

from ddptrain.distributed.collectives import (
    agree,
    all_reduce_sum,
    broadcast_object,
    data_parallel,
    differentiable_sum,
    first_true,
    gather_arrays,
    gather_objects,
    gather_rows,
    gather_to_main,
    no_sync,
    on_main,
    rank_and_size,
)
from ddptrain.distributed.group import last_word, process_group
from ddptrain.distributed.waiting import RankLost, Stop, Waiting
from ddptrain.distributed.world import World, discover

__all__ = [
    "RankLost",
    "Stop",
    "Waiting",
    "World",
    "agree",
    "all_reduce_sum",
    "broadcast_object",
    "data_parallel",
    "differentiable_sum",
    "discover",
    "first_true",
    "gather_arrays",
    "gather_objects",
    "gather_rows",
    "gather_to_main",
    "last_word",
    "no_sync",
    "on_main",
    "process_group",
    "rank_and_size",
]
